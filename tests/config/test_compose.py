"""GRPO's settings under real Hydra: the contract's defaults, each override it names, every mistake told at once."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tracetune.config.compose import CONF, EVALUATE, TRAIN, check_overrides, compose_evaluate, compose_grpo, options
from tracetune.config.grpo import config_mapping, deciding_mapping, resolve_evaluate, resolve_grpo, to_yaml
from tracetune.config.grpo_dials import EVALUATE_DIALS, GRPO_DIALS
from tracetune.config.grpo_schema import (
    EvaluateSettings,
    GenerationSettings,
    GrpoConfig,
    GrpoSettings,
    MeshSettings,
    RewardSettings,
)
from tracetune.config.grpo_steps import num_grpo_steps
from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.core.errors import InputError

pytestmark = pytest.mark.slow


def mistakes(*overrides: str, compose_settings=compose_grpo) -> list[str]:
    with pytest.raises(InputError) as caught:
        compose_settings(overrides)
    return str(caught.value).split("\n")


def composed(name: str, *overrides: str):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def test_the_yaml_and_the_classes_hold_the_same_defaults():
    assert compose_grpo() == GrpoConfig()
    assert compose_evaluate() == EvaluateSettings(checkpoint_dir="./checkpoints/ckpts/")


def test_the_defaults_are_the_contracts():
    config = compose_grpo()
    assert config.optimizer == OptimizerSettings(
        learning_rate=3e-6,
        beta1=0.9,
        beta2=0.99,
        weight_decay=0.1,
        warmup_ratio=0.1,
        max_grad_norm=0.1,
        schedule="cosine",
    )
    assert config.grpo == GrpoSettings(num_generations=4, num_iterations=1, beta=0.08, epsilon=0.2)
    assert config.generation == GenerationSettings(
        max_prompt_length=256, max_generation_steps=512, temperature=0.9, top_p=1.0, top_k=50
    )
    training = config.training
    assert (training.micro_batch_size, training.num_batches, training.num_epochs) == (4, 3738, 1)
    assert (training.eval_interval_steps, training.save_interval_steps, training.max_checkpoints_to_keep) == (
        500,
        100,
        4,
    )
    assert training.checkpoint_dir == "./checkpoints/ckpts/"
    assert [(reward.function, reward.weight) for reward in config.rewards] == [
        ("match_format_exactly", 1.0),
        ("match_format_approximately", 1.0),
        ("check_answer", 1.0),
        ("check_numbers", 1.0),
    ]
    assert "<reasoning>" in config.prompt.instruction
    assert "<answer>" in config.prompt.instruction


def test_every_key_of_the_trees_is_a_dial_and_every_dial_stands_in_its_tree():
    def keys(name: str) -> set[str]:
        from tracetune.config.check import leaves

        content = OmegaConf.to_container(composed(name), resolve=True)
        return {key for key, _ in leaves(content)}

    # A word alone stands for the suite.
    assert keys("config") | {"benchmark"} == {dial.key for dial in GRPO_DIALS}
    assert keys("evaluate") == {dial.key for dial in EVALUATE_DIALS}


@pytest.mark.parametrize(
    ("option", "name", "rank"),
    [
        ("gemma3_270m", "google/gemma-3-270m-it", 32),
        ("gemma3_1b", "google/gemma-3-1b-it", 32),
        ("gemma3_4b", "google/gemma-3-4b-it", 32),
        ("gemma3_test", "google/gemma-3-270m-it", 4),
        ("qwen3_0p6b", "Qwen/Qwen3-0.6B", 32),
        ("qwen3_1p7b", "Qwen/Qwen3-1.7B", 32),
        ("llama3p1_8b", "meta-llama/Llama-3.1-8B-Instruct", 32),
    ],
)
def test_a_model_is_chosen_by_its_short_name(option, name, rank):
    model = compose_grpo([f"model={option}"]).model
    assert (model.name, model.lora and model.lora.r) == (name, rank)


@pytest.mark.slow
@pytest.mark.parametrize("group", [*TRAIN.groups, *EVALUATE.groups])
def test_every_option_of_every_group_composes(group):
    compose_settings = compose_evaluate if group in EVALUATE.groups else compose_grpo
    assert options(group)
    for option in options(group):
        compose_settings([f"{group}={option}"])


@pytest.mark.slow
def test_a_model_folder_stands_in_the_place_of_a_name():
    assert compose_grpo(["model=tiny", "model.path=./my/model"]).model.name == "./my/model"
    assert compose_grpo(["model=tiny", "model.path=qwen3:8b"]).model.name == "Qwen/Qwen3-8B"
    assert compose_grpo(["model=tiny"]).model.lora is None


def test_a_family_and_size_that_the_alias_table_does_not_know_are_refused():
    told = mistakes("model=gemma3_270m", "model.model_size=280m")
    assert told == [
        "config: model.model_family and model_size: no model 'gemma3_280m'; did you mean gemma3_270m?",
    ]
    assert compose_grpo(["model=gemma3_270m", "model.model_size=4b"]).model.name == "google/gemma-3-4b-it"


@pytest.mark.parametrize(
    ("pattern", "modules"),
    [
        ("'.*q_einsum|.*kv_einsum'", ("q_proj", "k_proj", "v_proj")),
        ("[q_proj,o_proj]", ("q_proj", "o_proj")),
        ("'.*attn_vec_einsum|.*gate_proj|.*down_proj|.*up_proj'", ("o_proj", "gate_proj", "up_proj", "down_proj")),
        ("null", LoraSettings().target_modules),
    ],
)
def test_an_adapter_is_laid_on_the_weights_that_the_pattern_covers(pattern, modules):
    lora = compose_grpo(["model=gemma3_270m", f"model.lora_module_path={pattern}", "model.lora_alpha=8"]).model.lora
    assert lora == LoraSettings(r=32, alpha=8.0, target_modules=modules)


def test_a_pattern_that_covers_nothing_is_refused():
    for pattern in ("'.*router'", "'('", "[q_proj,nose]", "[]"):
        assert "model.lora_module_path: must be a pattern" in mistakes(f"model.lora_module_path={pattern}")[0]


@pytest.mark.slow
def test_a_mesh_is_written_as_counts_and_axes():
    config = compose_grpo(['model.mesh_shape=[[2,2],["fsdp","tp"]]'])
    assert config.model.mesh == MeshSettings(shape=(2, 2), axes=("fsdp", "tp"))
    for wrong in ("[[2],[fsdp,tp]]", "[[2,2],[tp,tp]]", "[[0],[tp]]", "[2,2]", "[[],[]]"):
        assert "model.mesh_shape: must be device counts" in mistakes(f"model.mesh_shape={wrong}")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("wandb_disabled=true", lambda config: config.tracking.wandb_disabled is True),
        ("training.eval_interval_steps=7", lambda config: config.training.eval_interval_steps == 7),
        ("training.save_interval_steps=50", lambda config: config.training.save_interval_steps == 50),
        ("optimizer.learning_rate=2e-5", lambda config: config.optimizer.learning_rate == 2e-5),
        ("training.train_fraction=0.5", lambda config: config.data.train_fraction == 0.5),
        ("training.log_dir=logs", lambda config: config.tracking.log_dir == "logs"),
        ("generation.top_k=null", lambda config: config.generation.top_k is None),
        ("optimizer.max_grad_norm=null", lambda config: config.optimizer.max_grad_norm is None),
        ("grpo.beta=0", lambda config: config.grpo.beta == 0.0),
        ("prompt.instruction='Think.'", lambda config: config.prompt.instruction == "Think."),
        ("resume=never", lambda config: config.resume == "never"),
        ("++seed=7", lambda config: config.seed == 7),
    ],
)
def test_an_override_sets_its_dial(override, read):
    assert read(compose_grpo([override]))
    assert not read(compose_grpo())


@pytest.mark.parametrize("source", ["huggingface", "tfds", "kaggle"])
def test_a_hub_is_asked_for_its_training_split(source):
    data = compose_grpo([f"training.data_source={source}"]).data
    assert (data.data_source, data.data_path, data.split, data.task) == (source, None, "train", None)


@pytest.mark.slow
def test_each_source_has_keys_of_its_own():
    good = compose_grpo(["training.data_source=jsonl", "training.data_path=rows.jsonl"]).data
    assert (good.data_path, good.task, good.split) == ("rows.jsonl", None, None)
    assert mistakes("training.data_source=jsonl", "training.task=arithmetic") == [
        "config: training.task: has no effect with training.data_source=jsonl; remove one",
        "config: training.data_source: jsonl needs training.data_path, the file of problems; add it",
    ]
    assert mistakes("training.data_path=rows.jsonl") == [
        "config: training.data_path: has no effect with training.data_source=builtin; remove one",
    ]
    assert compose_grpo(["training.task=arithmetic:easy"]).data.task == "arithmetic:easy"


@pytest.mark.parametrize("key", ["checkpoint_dir", "training.checkpoint_dir"])
def test_checkpoints_go_where_either_spelling_says(key):
    assert compose_grpo([f"{key}=./mine/"]).training.checkpoint_dir == "./mine/"


def test_two_spellings_that_differ_are_refused():
    same = ("checkpoint_dir=a", "training.checkpoint_dir=a")
    assert compose_grpo(same).training.checkpoint_dir == "a"
    told = mistakes("checkpoint_dir=a", "training.checkpoint_dir=b")
    assert told == [
        "config: training.checkpoint_dir: contradicts config: checkpoint_dir, which sets the same; keep one",
    ]


@pytest.mark.slow
def test_rewards_are_named_and_weighed():
    config = compose_grpo(["rewards.functions=[check_answer,my_team.rewards:brevity]", "rewards.weights=[1,-0.5]"])
    assert config.rewards == (
        RewardSettings(function="check_answer"),
        RewardSettings(function="my_team.rewards:brevity", weight=-0.5),
    )
    assert mistakes("rewards.weights=[1]") == [
        "config: rewards.weights: must be one for each of 4 rewards, got 1",
    ]
    for wrong in ("[check_answer,check_answer]", "[]", "['a b']", "[a:]", "[1]"):
        assert "rewards.functions: must be a list of rewards" in mistakes(f"rewards.functions={wrong}")[0]


def test_the_quick_experiment_is_ten_steps_of_the_model_one_chose():
    config = compose_grpo(["model=gemma3_270m", "+experiment=quick_test"])
    assert num_grpo_steps(config) == 10
    assert config.model.name == "google/gemma-3-270m-it"
    assert config.tracking.wandb_disabled
    assert num_grpo_steps(compose_grpo(["+experiment=full_training"])) == 3738


def test_a_word_wins_over_the_experiment():
    assert compose_grpo(["+experiment=quick_test", "training.num_batches=3"]).training.num_batches == 3


def test_every_mistake_is_told_at_once_with_the_nearest_right_word():
    told = mistakes(
        "model=gema3_270m",
        "grpo.epsilom=3",
        "modle=tiny",
        "experiment=quick_test",
        "+grpo.beta=0.1",
        "grpo.beta=1,2",
        "a b",
        "+model=tiny",
        "~model",
        "grpo.num_generations=1",
        "training.num_batches=abc",
        "generation.temperature=0",
    )
    assert told[0].startswith(
        "override 'model=gema3_270m': no such option 'gema3_270m'; did you mean gemma3_270m?; model is one of"
    )
    assert told[1:] == [
        "override 'grpo.epsilom=3': unknown key; did you mean grpo.epsilon?",
        "override 'modle=tiny': unknown key; did you mean model?",
        "override 'experiment=quick_test': must be written +experiment=quick_test",
        "override '+grpo.beta=0.1': is there already; write it without +: grpo.beta=0.1",
        "override 'grpo.beta=1,2': several values need --multirun; a list is written [a,b]",
        "override 'a b': not readable; write key=value, quoted where a shell reads it",
        "override '+model=tiny': is chosen already; write it without +: model=tiny",
        "override '~model': this group cannot be left out; choose one of its options",
        "config: grpo.num_generations: must be a whole number of at least 2 (one completion has no siblings), got 1",
        "config: generation.temperature: must be a number above 0 (greedy completions of one prompt are all equal), "
        "got 0",
        "config: training.num_batches: must be a whole number of at least 1, or null, got 'abc'",
    ]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("learning_rate=1e-5", "unknown key; did you mean optimizer.learning_rate?"),
        ("num_generations=8", "unknown key; did you mean grpo.num_generations?"),
        ("data_source=jsonl", "unknown key; did you mean training.data_source?"),
        ("training.eval_every_n_steps=10", "unknown key; did you mean training.eval_interval_steps?"),
        ("+foo=1", "unknown key; --cfg job prints every key"),
        ("hydra/launcher=submitit_slurm", 'is not installed; run pip install "tracetune[slurm]"'),
        ("hydra/launcher=ray", 'is not installed; run pip install "tracetune[ray]"'),
    ],
)
def test_a_word_that_is_nearly_right_is_told_what_is(word, told):
    assert mistakes(word) == [f"override {word!r}: {told}"]


def test_a_repository_in_a_groups_place_is_told_where_it_goes():
    (told,) = mistakes("model=Qwen/Qwen3-0.6B")
    assert told.endswith("; a folder or repository is written model.path=Qwen/Qwen3-0.6B")


def test_a_word_of_hydras_own_that_it_refuses_is_told_in_one_line():
    assert mistakes("hydra/launcher=nowhere") == [
        "config: In 'hydra/config': Could not find 'hydra/launcher/nowhere' Available options in 'hydra/launcher': "
        "basic processes",
    ]
    compose_grpo(["hydra/launcher=basic", "hydra.run.dir=here"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("grpo.epsilon", "0", "0.01"),
        ("grpo.epsilon", "1", "0.99"),
        ("grpo.beta", "-0.01", "0"),
        ("grpo.num_iterations", "0", "1"),
        ("grpo.loss", "ppo", "dapo"),
        ("generation.top_p", "0", "1"),
        ("generation.top_k", "0", "1"),
        ("generation.max_prompt_length", "1.5", "1"),
        ("optimizer.learning_rate", "'2e-5'", "2e-5"),
        ("optimizer.beta2", "1", "0.999"),
        ("training.train_fraction", "1.1", "1.0"),
        ("training.num_epochs", "0", "0.5"),
        ("training.data_source", "hugging_face", "huggingface"),
        ("model.lora_rank", "0", "1"),
        ("wandb_disabled", "1", "true"),
        ("backend", "cloud", "local"),
        ("seed", "-1", "0"),
    ],
)
def test_a_value_outside_its_range_is_refused_and_its_neighbour_taken(key, wrong, right):
    (told,) = mistakes(f"{key}={wrong}")
    assert told.startswith(f"config: {key}: must be ")
    compose_grpo([f"{key}={right}"])


@pytest.mark.slow
def test_of_a_sweep_each_value_is_checked():
    words = ["grpo.beta=0.0,0.04", "model=tiny,gemma3_270m", "training.num_batches=range(1,3)", "seed=interval(0,1)"]
    check_overrides(TRAIN, words, sweep=True)
    with pytest.raises(InputError) as caught:
        check_overrides(TRAIN, ["grpo.beta=0.0,-1", "model=tiny,tinny"], sweep=True)
    told = str(caught.value).split("\n")
    assert told[0].startswith("override 'model=tiny,tinny': no such option 'tinny'; did you mean tiny?")
    assert told[1:] == ["config: grpo.beta: must be a number of at least 0, got -1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=gemma3_test", "+experiment=quick_test", "prompt.system='Be brief.'"],
        ["training.data_source=jsonl", "training.data_path=rows.jsonl", "optimizer.warmup_steps=3"],
        ["training.data_source=huggingface", "rewards.functions=[a.b:c]", "rewards.weights=[2]", "grpo.loss=dapo"],
        ["model.path=/some/where", "model.mesh_shape=[[8],[fsdp]]", "generation.top_k=null", "wandb_run=mine"],
    ],
)
def test_the_resolved_file_of_a_run_reads_back_to_the_same_settings(overrides):
    config = compose_grpo(overrides)
    assert resolve_grpo(OmegaConf.create(to_yaml(config))) == config
    assert resolve_grpo(config_mapping(config)) == config


@pytest.mark.slow
def test_where_a_run_is_written_and_told_decides_nothing():
    same = ["wandb_disabled=true", "wandb_run=x", "training.log_dir=logs", "checkpoint_dir=c", "resume=never"]
    assert deciding_mapping(compose_grpo(same)) == deciding_mapping(compose_grpo())
    assert deciding_mapping(compose_grpo(["seed=1"])) != deciding_mapping(compose_grpo())


def test_a_part_of_a_mapping_leaves_the_rest_at_its_defaults():
    assert resolve_grpo({}) == GrpoConfig()
    assert resolve_grpo({"optimizer": {"learning_rate": 1e-4}}).optimizer.beta2 == 0.99
    with pytest.raises(InputError, match=r"unknown key; did you mean optimizer\.learning_rate\?"):
        resolve_grpo({"optimizer": {"learnig_rate": 1e-4}})


def test_an_interpolation_is_resolved_and_a_broken_one_is_told():
    assert resolve_grpo({"seed": "${training.num_batches}", "training": {"num_batches": 3}}).seed == 3
    with pytest.raises(InputError, match="nowhere"):
        resolve_grpo({"seed": "${nowhere}"})


def test_composing_inside_a_caller_who_uses_hydra_leaves_it_as_it_was():
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        assert compose_grpo(["seed=1"]).seed == 1
        assert resolve_grpo(compose("config", overrides=["seed=2"])).seed == 2


@pytest.mark.parametrize(
    ("name", "temperature", "top_k", "top_p"),
    [("greedy", 0.0, None, 1.0), ("standard", 0.7, 50, 0.95), ("liberal", 0.85, 2000, 1.0)],
)
def test_evaluation_draws_as_its_inference_config_says(name, temperature, top_k, top_p):
    settings = compose_evaluate(["checkpoint_dir=ckpts", "step=100", f"inference_config={name}", "num_passes=8"])
    assert settings == EvaluateSettings(
        checkpoint_dir="ckpts",
        step=100,
        num_passes=8,
        inference_config=name,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )


def test_a_mistake_about_evaluation_is_told_like_any_other():
    told = mistakes("inference_config=gready", "setp=3", "num_passes=0", compose_settings=compose_evaluate)
    assert told == [
        "override 'inference_config=gready': no such option 'gready'; did you mean greedy?; "
        "inference_config is one of greedy, liberal, standard",
        "override 'setp=3': unknown key; did you mean step?",
        "config: num_passes: must be a whole number of at least 1, got 0",
    ]
    assert resolve_evaluate({"checkpoint_dir": "x"}).checkpoint_dir == "x"


@pytest.mark.slow
def test_the_number_of_steps_is_the_contracts_product_bounded_by_the_data():
    words = ["training.num_batches=100", "training.train_fraction=0.29", "grpo.num_iterations=2"]
    assert num_grpo_steps(compose_grpo(words)) == 58
    assert num_grpo_steps(compose_grpo([*words, "training.num_epochs=3"])) == 174
    assert num_grpo_steps(compose_grpo(), num_problems=43) == 10
    assert num_grpo_steps(compose_grpo(), num_problems=1) == 1


@pytest.mark.parametrize("word", ["hydra.verbose=a,b", "hydra.run.dir=range(1,3)", "hydra.job.name=glob(x*)"])
def test_several_values_for_a_word_of_hydras_own_are_no_settings_of_one_run(word):
    (told,) = mistakes(word)
    assert "Ambiguous value" in told or "requires --multirun" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (None, (), 512)),
        (("benchmark=quick",), ("quick", (), 512)),
        (("benchmark.suite=standard", "benchmark.max_tokens=9"), ("standard", (), 9)),
        (("benchmark={suite: quick, datasets: [safety]}",), ("quick", ("safety",), 512)),
        (("benchmark.datasets=[k12]",), (None, ("k12",), 512)),
    ],
)
def test_a_benchmark_is_chosen_by_a_word_or_by_its_keys(words, expected):
    config = compose_grpo(words)
    asked = config.tracking.benchmark
    assert (asked.suite, asked.datasets, asked.max_tokens) == expected
    assert resolve_grpo(config_mapping(config)) == config
    assert "benchmark" not in deciding_mapping(config)


def test_what_a_benchmark_is_to_be_like_needs_one():
    with pytest.raises(InputError, match=r"benchmark\.max_tokens: has no effect without benchmark\.suite"):
        compose_grpo(["benchmark.max_tokens=9"])
    with pytest.raises(InputError, match="must be 'quick' or 'standard'"):
        compose_grpo(["benchmark=quik"])
