"""Runs by Tunix itself: the same steps as ours, the same run folder, resumed and reproduced; its hazards kept away."""

import io
import json
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.backends.fixtures.tunix_oracle import LENGTH, OPTIMIZER, ROWS, cases, examples, random_model

from tracetune.app.grpo import run_grpo
from tracetune.app.grpo_evaluate import evaluate_checkpoint
from tracetune.app.manifest import folder_hashes
from tracetune.app.reproduce import reproduce
from tracetune.app.rollouts import read_rollouts
from tracetune.app.runs import first_metrics_difference, read_metrics
from tracetune.app.sft import run_sft
from tracetune.backends.local import LocalBackend
from tracetune.backends.local_policy import LocalPolicy
from tracetune.config.grpo import resolve_grpo
from tracetune.config.grpo_schema import (
    EvaluateSettings,
    GenerationSettings,
    GrpoConfig,
    GrpoModelSettings,
    GrpoSettings,
    GrpoTrainingSettings,
)
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import LoraSettings, ModelSettings, OptimizerSettings, SftConfig, TrainingSettings
from tracetune.core.errors import InputError
from tracetune.core.values import Batch
from tracetune.data.pack import make_batch
from tracetune.data.pack_groups import Branch, Group
from tracetune.models.load import load_model, save_folder
from tracetune.models.model import Model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("tunix") is None, reason='Tunix is not installed: pip install "tracetune[tunix]"'),
]
TOLERANCE = 1e-4
# One layer or two: what compiles is what takes the time.
QWEN = replace(cases()["qwen3_tied"], num_layers=1)
GEMMA = replace(cases()["gemma3_grouped"], num_layers=2, sliding_layers=(0, 1))
PROMPTS = [[5, 6, 7, 8], [9, 10]]
REWARD = f"{__name__}:likes_early_letters"


def likes_early_letters(prompts, completions, answer, **columns) -> list[float]:
    """The share of a completion's characters that are in the first half of the alphabet."""
    del prompts, answer, columns
    return [sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in completions]


# --- supervised steps ---


def sft_config(*, lora: LoraSettings | None = None, accumulate: int = 1, remat: bool = False) -> SftConfig:
    return SftConfig(
        model=ModelSettings(max_length=2 * LENGTH, lora=lora),
        optimizer=OPTIMIZER,
        training=TrainingSettings(gradient_accumulation_steps=accumulate, gradient_checkpointing=remat),
    )


def packed(step: int) -> Batch:
    """Two rows, the first with two examples in it."""
    assert ROWS == 3
    return make_batch([(0, 1), (2,)], examples(step, QWEN.vocab_size), max_length=2 * LENGTH, pad_id=0)


def by_tunix(model: Model, config: SftConfig):
    from tracetune.backends.tunix import TunixBackend

    return TunixBackend(model, config, num_steps=6)


def test_packed_accumulated_steps_are_those_of_the_local_backend():
    config = sft_config(accumulate=2, remat=True)
    theirs, ours = by_tunix(random_model(QWEN), config), LocalBackend(random_model(QWEN), config, num_steps=6)
    for step in range(3):
        batches = [packed(2 * step), packed(2 * step + 1)]
        np.testing.assert_allclose(theirs.train_step(batches), ours.train_step(batches), rtol=TOLERANCE)
    assert theirs.eval_loss([packed(9)]) == pytest.approx(ours.eval_loss([packed(9)]), rel=TOLERANCE)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), theirs.model.params, ours.model.params)


def test_an_adapter_on_fused_kernels_is_saved_for_peft_and_computes_the_same(tmp_path):
    save_folder(random_model(GEMMA), tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    config = sft_config(lora=LoraSettings(r=3, alpha=6.0))
    theirs = by_tunix(base, config)
    for step in range(3):
        theirs.train_step([packed(step)])
    theirs.export(tmp_path / "adapter")
    again = load_model(str(tmp_path / "adapter"))
    assert again.lora is not None
    assert float(jnp.abs(again.lora["layers"]["v_proj"]["b"]).max()) > 0
    told = LocalBackend(again, sft_config(), num_steps=1).eval_loss([packed(7)])
    assert told == pytest.approx(theirs.eval_loss([packed(7)]), rel=TOLERANCE)


def test_a_resumed_state_goes_on_as_if_it_had_never_stopped(tmp_path):
    config = sft_config(lora=LoraSettings(r=2, alpha=4.0), accumulate=2)
    whole = by_tunix(random_model(GEMMA), config)
    for step in range(2):
        whole.train_step([packed(step), packed(step + 10)])
    whole.snapshot(tmp_path / "step-000002", {"position": [2]})
    resumed = by_tunix(random_model(GEMMA), config)
    assert resumed.restore(tmp_path, warn=pytest.fail) == {"position": [2]}
    for step in range(2, 4):
        batches = [packed(step), packed(step + 10)]
        assert resumed.train_step(batches) == whole.train_step(batches)
    jax.tree.map(np.testing.assert_array_equal, resumed.model.lora, whole.model.lora)


def test_a_gradient_that_is_not_finite_is_told_and_leaves_the_weights():
    model = random_model(replace(cases()["qwen3_untied"], num_layers=1))
    params = {**model.params, "embed": model.params["embed"].at[0].set(jnp.nan)}
    backend = by_tunix(model._replace(params=params), sft_config())
    assert np.isfinite(backend.train_step([packed(0)._replace(tokens_BT=np.maximum(packed(0).tokens_BT, 1))]).loss)
    before = jax.tree.map(np.array, backend.model.params)
    metrics = backend.train_step([packed(1)._replace(tokens_BT=np.zeros_like(packed(1).tokens_BT))])
    assert not np.isfinite(metrics.grad_norm)
    jax.tree.map(np.testing.assert_array_equal, backend.model.params, before)
    assert np.isfinite(backend.train_step([packed(2)._replace(tokens_BT=np.maximum(packed(2).tokens_BT, 1))]).loss)


# --- runs ---


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "model"
    save_folder(random_model(QWEN), folder)
    rows = [{"prompt": f"What is {a} + {b}?", "response": f"Answer: {a + b}"} for a in range(8) for b in range(3)]
    folder.with_name("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_settings(small: Path, **training: Any) -> dict[str, Any]:
    rows = str(small.with_name("rows.jsonl"))
    wanted = {"num_steps": 6, "learning_rate": 0.01, "batch_size": 2, "logging_steps": 1, "save_steps": 2, "seed": 7}
    return {
        "backend": "tunix",
        "model": {"name": str(small), "max_length": 64},
        "training": {**wanted, "eval_steps": 3, **training},
        "data": {"train_file": rows, "eval_file": rows},
    }


def test_a_run_by_tunix_leaves_the_run_folder_of_any_run_and_is_reproduced(small, tmp_path):
    seen: list[str] = []
    jax.monitoring.register_scalar_listener(lambda event, *_, **__: seen.append(event))
    result = run_sft(load_sft_config(run_settings(small)), output=tmp_path / "run", stream=io.StringIO())
    assert (result.status, result.num_steps) == ("finished", 6)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    local = run_sft(
        load_sft_config({**run_settings(small), "backend": "local"}), output=tmp_path / "local", stream=io.StringIO()
    )
    for mine, theirs in zip(read_metrics(tmp_path / "local" / "metrics.jsonl"), rows, strict=True):
        assert mine.keys() == theirs.keys()
        for name in ("loss", "grad_norm", "learning_rate", "targets", "tokens"):
            assert theirs[name] == pytest.approx(mine[name], rel=TOLERANCE)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in local.folder.iterdir()}
    manifest = json.loads((tmp_path / "run" / "run_manifest.json").read_text())
    assert manifest["training_config"]["backend"] == "tunix"
    assert manifest["backend_versions"]["google-tunix"] == "0.1.7"
    assert load_model(str(tmp_path / "run")).arch == QWEN
    assert reproduce(tmp_path / "run", stream=io.StringIO()).identical
    jax.monitoring.record_scalar("still here", 1.0)
    assert seen[-1] == "still here"


def test_a_run_that_was_stopped_ends_as_one_that_was_not(small, tmp_path, capsys):
    whole = run_sft(load_sft_config(run_settings(small)), output=tmp_path / "whole", stream=io.StringIO())
    stopped = load_sft_config(run_settings(small))
    screen = Stopper(at="step 3")
    assert run_sft(stopped, output=tmp_path / "part", stream=screen).status == "interrupted"
    part = run_sft(stopped, output=tmp_path / "part", stream=io.StringIO())
    assert folder_hashes(part.checkpoint) == folder_hashes(whole.checkpoint)
    assert first_metrics_difference(tmp_path / "whole" / "metrics.jsonl", tmp_path / "part" / "metrics.jsonl") is None
    # No progress bar of its own, nothing printed.
    assert capsys.readouterr() == ("", "")


class Stopper(io.StringIO):
    """A screen that sends SIGTERM to its own process when it shows a text."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def write(self, text: str) -> int:
        import signal

        if self.at in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


def test_wandb_is_never_opened(small, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "wandb.py").write_text(
        "from pathlib import Path\n"
        "def __getattr__(name):\n"
        f"    Path({str(folder / 'used')!r}).write_text(name)\n"
        "    raise AttributeError(name)\n"
    )
    script = (
        "from tracetune.app.sft import run_sft\n"
        "from tracetune.config.resolve import load_sft_config\n"
        f"run_sft(load_sft_config({run_settings(small, num_steps=2)!r}), output=__import__('pathlib').Path("
        f"{str(tmp_path / 'run')!r}))\n"
    )
    import subprocess

    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (folder / "used").exists() or (folder / "used").read_text().startswith("__")


def test_a_model_or_setting_that_is_refused_leaves_no_folder(small, tmp_path):
    config = load_sft_config({**run_settings(small), "model": {"name": "tiny"}})
    with pytest.raises(InputError, match=r"ignores rope_theta for Qwen3 .* this model by 10,000"):
        run_sft(config, output=tmp_path / "run", stream=io.StringIO())
    assert not (tmp_path / "run").exists()


# --- policies ---


def policy_config(*, loss: Any = "grpo", iterations: int = 1, beta: float = 0.04) -> GrpoConfig:
    return GrpoConfig(
        model=GrpoModelSettings(),
        optimizer=OptimizerSettings(learning_rate=0.01, schedule="constant"),
        grpo=GrpoSettings(num_generations=4, beta=beta, loss=loss, num_iterations=iterations, epsilon_high=0.3),
        generation=GenerationSettings(
            max_prompt_length=8, max_generation_steps=12, temperature=0.8, top_k=None, top_p=1.0
        ),
        training=GrpoTrainingSettings(micro_batch_size=2),
    )


@pytest.mark.parametrize(("loss", "iterations"), [("grpo", 1), ("dr_grpo", 2)])
def test_policy_steps_are_those_of_the_local_backend(loss, iterations):
    from tracetune.backends.tunix_policy import TunixPolicy

    config = policy_config(loss=loss, iterations=iterations)
    theirs = TunixPolicy(random_model(QWEN), config, num_steps=20)
    ours = LocalPolicy(random_model(QWEN), config, num_steps=20, longest_prompt=4)
    for step in range(3):
        said = theirs.sample(PROMPTS, keys(step))
        # The last group has lost one completion to an error: a row that teaches nothing.
        groups = [
            Group(prompt, [Branch(one.tokens, (-1.0) ** place * (1 + place), one.policy_logprobs)
                           for place, one in enumerate(group)][: 4 - number])
            for number, (prompt, group) in enumerate(zip(PROMPTS, said, strict=True))
        ]  # fmt: skip
        for mine, other in zip(ours.update(groups), theirs.update(groups), strict=True):
            for name in ("loss", "grad_norm", "learning_rate", "num_targets", "kl", "clip_share"):
                # Old log-probs are the sampler's with us and the trainer's with Tunix: float32 of two programs.
                assert getattr(other, name) == pytest.approx(getattr(mine, name), rel=2e-3, abs=1e-3), name
    greedy = theirs.answer(PROMPTS, temperature=0.0, seed=1)
    assert [one.tokens for one in greedy] == [one.tokens for one in ours.answer(PROMPTS, temperature=0.0, seed=1)]


def test_a_completion_keeps_its_stop_token_and_the_policy_learns_it():
    from tracetune.backends.tunix_policy import TunixPolicy

    backend = TunixPolicy(random_model(QWEN), policy_config(beta=0.0), num_steps=40)
    stop = min(backend.model.tokenizer.stop_ids)
    group = [Group(PROMPTS[0], [Branch([20 + place, stop], (-1.0) ** (place + 1), [-7.0] * 2) for place in range(4)])]
    for _ in range(30):
        (metrics,) = backend.update(group)
    assert metrics.num_targets == 8
    said = backend.sample(PROMPTS, keys(3))
    ended = [one for completions in said for one in completions if one.stop_reason == "stop"]
    assert ended
    assert all(one.tokens[-1] in backend.model.tokenizer.stop_ids for one in ended)
    assert all(len(one.policy_logprobs) == len(one.tokens) for one in ended)


def keys(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (2, 4, 2), dtype=np.uint32)


def grpo_settings(small: Path, checkpoints: Path, **more: Any) -> GrpoConfig:
    return resolve_grpo(
        {
            "backend": "tunix",
            "model": {"path": str(small)},
            "optimizer": {"learning_rate": 0.01},
            "grpo": {"num_generations": 4, "beta": 0.04},
            "generation": {"max_generation_steps": 8, "max_prompt_length": 96, "temperature": 1.0, "top_k": None},
            "training": {
                "data_source": "builtin",
                "micro_batch_size": 2,
                "num_batches": 4,
                "num_test_batches": 2,
                "eval_interval_steps": 2,
                "save_interval_steps": 2,
                "checkpoint_dir": str(checkpoints),
            },
            "rewards": {"functions": [REWARD]},
            **more,
        }
    )


def test_a_grpo_run_by_tunix_leaves_the_run_folder_of_any_run_and_is_evaluated(small, tmp_path):
    config = grpo_settings(small, tmp_path / "ckpts")
    result = run_grpo(config, output=tmp_path / "run", stream=io.StringIO())
    assert (result.status, result.num_steps) == ("finished", 4)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert "validation_accuracy" in rows[1]
    assert all(row["kl"] >= 0 and np.isfinite(row["loss"]) for row in rows)
    rollouts = list(read_rollouts(tmp_path / "run", 1))
    assert len(rollouts) == 8
    assert len({tuple(row["tokens"]) for row in rollouts}) > 1
    assert load_model(str(tmp_path / "run")).arch == QWEN
    for place in (tmp_path / "ckpts", tmp_path / "run"):
        answers = evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(place)), stream=io.StringIO())
        assert answers.is_file()


def test_a_grpo_run_that_was_stopped_ends_as_one_that_was_not(small, tmp_path):
    whole = run_grpo(grpo_settings(small, tmp_path / "a"), output=tmp_path / "whole", stream=io.StringIO())
    config = grpo_settings(small, tmp_path / "b")
    first = run_grpo(config, output=tmp_path / "part", stream=Stopper(at="ETA"))
    assert first.status == "interrupted"
    part = run_grpo(config, output=tmp_path / "part", stream=io.StringIO())
    assert part.status == "finished"
    assert folder_hashes(part.checkpoint) == folder_hashes(whole.checkpoint)
