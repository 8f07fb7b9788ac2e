"""Settings: three older shapes and the resolved one are read; every mistake is told, all at once."""

from pathlib import Path

import pytest

from tracetune.config.dials import DIALS
from tracetune.config.resolve import config_mapping, load_sft_config, to_yaml
from tracetune.config.schema import LoraSettings, SftConfig
from tracetune.core.errors import InputError, NotFound

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def mistakes(source, overrides=()) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_sft_config(source, overrides, where="c.yaml")
    return str(caught.value).split("\n")


def test_nothing_given_is_every_default():
    assert load_sft_config() == SftConfig()


def test_the_shipped_tiny_file_is_read():
    config = load_sft_config(CONFIGS / "sft_tiny.yaml")
    assert (config.model.name, config.model.packing, config.model.drop_long) == ("tiny", True, True)
    assert (config.training.num_steps, config.training.batch_size, config.training.save_every) == (50, 4, 25)
    assert (config.optimizer.warmup_steps, config.data.shuffle_seed) == (5, 42)


def test_the_shipped_lora_file_is_read():
    config = load_sft_config(CONFIGS / "sft.yaml")
    assert config.model.lora == LoraSettings(r=16, alpha=32.0)
    assert (config.model.name, config.model.max_length) == ("qwen3:8b", 2048)
    assert config.optimizer.learning_rate == 2e-5
    assert (config.training.eval_every, config.output.folder) == (100, "artifacts/training_runs/sft")


def test_flat_keys_set_the_same_dials():
    config = load_sft_config({"model": "tiny", "learning_rate": 0.5, "steps": 7, "batch_size": 3, "seed": 9})
    assert (config.model.name, config.optimizer.learning_rate) == ("tiny", 0.5)
    assert (config.training.num_steps, config.training.batch_size, config.training.seed) == (7, 3, 9)


def test_an_exponent_without_a_dot_is_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 2e-5\n")
    assert load_sft_config(path).optimizer.learning_rate == 2e-5
    path.write_text("learning_rate: '2e-5'\n")
    assert mistakes(path) == [
        f"{path}: learning_rate: must be a number above 0 and at most 1, got '2e-5' (text)",
    ]


def test_every_mistake_is_told_at_once():
    told = mistakes(
        {
            "model": {"nmae": "tiny", "max_length": True},
            "training": {"num_steps": 0, "optimizer": "sgd", "learning_rate": -1, "num_epochs": 2},
            "data": 5,
            "output": {"metrics_file": "../m.jsonl"},
        }
    )
    assert told == [
        "c.yaml: model.nmae: unknown key; did you mean model.name?",
        "c.yaml: model.max_length: must be a whole number of at least 8, got true",
        "c.yaml: training.num_steps: must be a whole number of at least 1, or null, got 0",
        "c.yaml: training.optimizer: must be 'adamw', got 'sgd'",
        "c.yaml: training.learning_rate: must be a number above 0 and at most 1, got -1",
        "c.yaml: data: must be a section with keys of its own, got 5",
        "c.yaml: output.metrics_file: must be a path inside the run folder, got '../m.jsonl'",
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("leraning_rate", "learning_rate"),
        ("training.lerning_rate", "training.learning_rate"),
        ("training.warmup_step", "training.warmup_steps"),
        ("model.peft_config.alpha", "model.peft_config.lora_alpha"),
        ("max_grad_norm", "training.max_grad_norm"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(key, meant):
    content: dict = {}
    *parents, last = key.split(".")
    node = content
    for name in parents:
        node = node.setdefault(name, {})
    node[last] = 1
    (told,) = mistakes(content)
    assert told.endswith(f"unknown key; did you mean {meant}?")


@pytest.mark.parametrize(
    ("content", "repaired"),
    [
        ({"training": {"num_steps": 5, "num_epochs": 1}}, {"training": {"num_epochs": 1}}),
        ({"training": {"warmup_steps": 5, "warmup_ratio": 0.1}}, {"training": {"warmup_steps": 5}}),
        ({"steps": 5, "training": {"num_steps": 6}}, {"steps": 5, "training": {"num_steps": 5}}),
        ({"steps": 5, "training": {"warmup_steps": 6}}, {"steps": 5, "training": {"warmup_steps": 5}}),
        ({"training": {"eval_steps": 5}}, {"training": {"eval_steps": 5}, "data": {"eval_file": "e.jsonl"}}),
        ({"data": {"shuffle": False, "shuffle_seed": 1}}, {"data": {"shuffle": True, "shuffle_seed": 1}}),
        ({"learning_rate": float("inf")}, {"learning_rate": 1}),
        ({"model": {"peft_config": {}}}, {"model": {"peft_config": None}}),
        ({"model": {"lora": {"target_modules": ["q_porj"]}}}, {"model": {"lora": {"target_modules": ["q_proj"]}}}),
        ({"model": {"padding": "longest"}}, {"model": {"padding": "max_length"}}),
    ],
)
def test_a_contradiction_is_refused_and_its_repair_is_not(content, repaired):
    assert len(mistakes(content)) == 1
    load_sft_config(repaired)


def test_overrides_win_over_the_file_and_over_the_rival_key():
    source = {"training": {"num_epochs": 2, "learning_rate": 0.1}, "model": {"lora": {"r": 4}}}
    config = load_sft_config(source, ["steps=3", "learning_rate=2e-5", "model.lora=null"])
    assert (config.training.num_steps, config.optimizer.learning_rate, config.model.lora) == (3, 2e-5, None)
    assert load_sft_config(source, ["training.num_steps=null"]).training.num_epochs == 2


def test_a_bad_override_is_told_beside_the_mistakes_of_the_file():
    told = mistakes({"sed": 1}, ["stepz=3", "batch_size", "seed=x"])
    assert told[0].startswith("c.yaml: sed: unknown key; did you mean seed?")
    assert told[1:] == [
        "override 'batch_size': must be written key=value",
        "override: stepz: unknown key; did you mean steps?",
        "override: seed: must be a whole number of at least 0, got 'x'",
    ]


def test_the_resolved_yaml_reads_back_to_the_same_config(tmp_path):
    sources = [{}, CONFIGS / "sft_tiny.yaml", CONFIGS / "sft.yaml", {"training": {"max_grad_norm": None}}]
    for source in sources:
        config = load_sft_config(source)
        path = tmp_path / "config.yaml"
        path.write_text(to_yaml(config))
        assert load_sft_config(path) == config
        assert load_sft_config(config_mapping(config)) == config


def test_every_dial_of_the_schema_has_a_key_of_the_same_name():
    keys = {dial.key for dial in DIALS}
    targets = {dial.target for dial in DIALS if dial.target is not None}
    # One dial has the name that GRPO's users type.
    renamed = {"model.mesh_shape": "model.mesh"}
    assert {dial.key: dial.target for dial in DIALS if dial.target in renamed.values()} == renamed
    assert targets <= keys | {"model.lora", *renamed.values()}
    mapping = config_mapping(SftConfig())
    leaves = {f"{section}.{name}" for section, inner in mapping.items() if isinstance(inner, dict) for name in inner}
    assert {renamed.get(leaf, leaf) for leaf in leaves} <= targets | {"training.num_epochs"}


@pytest.mark.parametrize("text", ["a: [1", "just words", "- 1\n- 2", "seed: 1\nseed: 2\n", "seed: ${nothing}"])
def test_an_unreadable_file_is_one_clear_error(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        load_sft_config(path)
    path.write_text("seed: 1\n")
    assert load_sft_config(path).training.seed == 1


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.yaml"):
        load_sft_config(tmp_path / "gone.yaml")
