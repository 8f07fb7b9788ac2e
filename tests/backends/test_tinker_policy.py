"""GRPO by a Tinker service, ours on loopback: every loss beside the local policy's, its samples, and a whole run."""

import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracetune
from tracetune.app.grpo import run_grpo
from tracetune.app.grpo_evaluate import evaluate_checkpoint
from tracetune.app.rollouts import read_rollouts
from tracetune.app.runs import read_metrics
from tracetune.backends.local_policy import LocalPolicy
from tracetune.backends.tinker_policy import TinkerPolicy
from tracetune.backends.tinker_service import TinkerService, connected
from tracetune.config.grpo import resolve_grpo
from tracetune.config.grpo_schema import EvaluateSettings, GrpoConfig
from tracetune.core.errors import InputError
from tracetune.core.values import Completion
from tracetune.data.pack_groups import Branch, Group
from tracetune.models.load import load_model
from tracetune.models.served import served_model
from tracetune.train.prompts import sampling_keys

pytestmark = pytest.mark.long
TOLERANCE = 1e-4
PROMPTS = [[5, 6, 7, 8], [9, 10]]
REWARD = f"{__name__}:likes_early_letters"
SIBLINGS = 3


def likes_early_letters(prompts, completions, answer, **columns) -> list[float]:
    """The share of a completion's characters that are in the first half of the alphabet."""
    del prompts, answer, columns
    return [sum("a" <= letter <= "m" for letter in text) / max(1, len(text)) for text in completions]


@pytest.fixture(scope="module")
def url(small_model):
    """A Tinker of our own with the small model, for the tests of this file."""
    if find_spec("tinker") is None:
        pytest.skip('no SDK: pip install "tracetune[tinker]"')
    with tracetune.local_tinker(model=str(small_model)) as url:
        yield url


@pytest.fixture
def service(url, small_model):
    """A session with it."""
    with connected(str(small_model), sampled=True, say=print) as service:
        yield service


def grpo_config(model: Path, checkpoints: Path, grpo: dict[str, Any] | None = None, **training) -> GrpoConfig:
    wanted = {
        "backend": "tinker",
        "model": {"path": str(model), "lora_rank": 4},
        "optimizer": {"learning_rate": 0.05, "max_grad_norm": 1.0, "warmup_ratio": 0.0},
        "grpo": {"num_generations": SIBLINGS, "beta": 0.04, **(grpo or {})},
        "generation": {"max_generation_steps": 8, "temperature": 1.0, "top_k": None},
        "training": {
            "data_source": "builtin",
            "micro_batch_size": 2,
            "num_batches": 4,
            "num_test_batches": 2,
            "eval_interval_steps": 2,
            "save_interval_steps": 2,
            "checkpoint_dir": str(checkpoints),
            **training,
        },
        "rewards": {"functions": [REWARD]},
    }
    return resolve_grpo(wanted)


def by_service(service: TinkerService, config: GrpoConfig) -> TinkerPolicy:
    return TinkerPolicy(service, served_model(config.model.name), config, num_steps=8)


def locally(config: GrpoConfig) -> LocalPolicy:
    local = replace(config, backend="local")
    return LocalPolicy(load_model(config.model.name), local, num_steps=8, longest_prompt=4)


def credited(completions_PG: list[list[Completion]], seed: int) -> list[Group]:
    """Completions with random credit, one of them without any."""
    drawn = np.random.default_rng(seed)
    groups = []
    for prompt, group in zip(PROMPTS, completions_PG, strict=True):
        credit = drawn.normal(size=len(group)) * (np.arange(len(group)) > 0)
        groups.append(
            Group(
                prompt,
                [Branch(one.tokens, float(a), one.policy_logprobs) for one, a in zip(group, credit, strict=True)],
            )
        )
    return groups


def keys(index: int) -> np.ndarray:
    return np.stack([sampling_keys(3, 2 * index + place, SIBLINGS) for place in range(len(PROMPTS))])


@pytest.mark.parametrize(
    ("loss", "beta"),
    [
        pytest.param("grpo", 0.0, marks=pytest.mark.soak),
        ("grpo", 0.2),
        pytest.param("dr_grpo", 0.0, marks=pytest.mark.soak),
        pytest.param("rloo", 0.2, marks=pytest.mark.soak),
        ("dapo", 0.0),
        pytest.param("gspo", 0.0, marks=pytest.mark.soak),
        ("gspo", 0.2),
        pytest.param("cispo", 0.0, marks=pytest.mark.soak),
        ("cispo", 0.2),
    ],
)
def test_updates_are_those_of_the_local_policy(service, small_model, tmp_path, loss, beta):
    dials = {"loss": loss, "beta": beta, "num_iterations": 2, "epsilon": 0.05, "epsilon_high": 0.1}
    config = grpo_config(small_model, tmp_path, dials)
    theirs, ours = by_service(service, config), locally(config)
    clipped = kl = 0.0
    for batch in range(3):
        groups = credited(theirs.sample(PROMPTS, keys(batch)), batch)
        told = list(zip(theirs.update(groups), ours.update(groups), strict=True))
        assert len(told) == 2
        for got, wanted in told:
            for name in ("loss", "grad_norm", "learning_rate", "num_targets", "kl", "clip_share"):
                value = got._asdict()[name]
                assert value == pytest.approx(wanted._asdict()[name], rel=TOLERANCE, abs=TOLERANCE), (batch, name)
            clipped, kl = clipped + got.clip_share, kl + got.kl
        assert told[0][0].gap_max < TOLERANCE
        assert told[1][0].gap_max is None
    assert clipped > 0
    assert (kl > 1e-3) == (beta > 0)
    assert theirs.service.usage.train > 0


def test_the_comparison_sees_another_objective(service, small_model, tmp_path):
    config = grpo_config(small_model, tmp_path, {"beta": 0.2, "num_iterations": 2})
    theirs = by_service(service, config)
    ours = locally(replace(config, grpo=replace(config.grpo, beta=0.3)))
    groups = credited(theirs.sample(PROMPTS, keys(0)), 0)
    first, second = zip(theirs.update(groups), ours.update(groups), strict=True)
    # At the start policy and reference are one, whatever weighs their distance.
    assert first[0].loss == pytest.approx(first[1].loss, abs=TOLERANCE)
    assert abs(second[0].loss - second[1].loss) > TOLERANCE


def test_groups_are_drawn_alike_again_and_their_log_probs_are_the_trainers(service, small_model, tmp_path):
    policy = by_service(service, grpo_config(small_model, tmp_path))
    drawn = policy.sample(PROMPTS, keys(0))
    assert [len(group) for group in drawn] == [SIBLINGS, SIBLINGS]
    assert policy.sample(PROMPTS, keys(0)) == drawn
    assert policy.sample(PROMPTS, keys(1)) != drawn
    assert len({one.tokens for group in drawn for one in group}) > 2
    tokenizer = policy.model.tokenizer
    for group in drawn:
        for one in group:
            assert 1 <= len(one.tokens) <= 8
            by_id = one.tokens[-1] in tokenizer.stop_ids
            assert one.stop_reason == ("stop" if by_id else "length")
            assert one.text == tokenizer.decode(one.tokens[:-1] if by_id else one.tokens)
            assert len(one.policy_logprobs) == len(one.tokens)


def test_greedy_answers_are_those_of_the_local_policy(service, small_model, tmp_path):
    config = grpo_config(small_model, tmp_path)
    theirs = by_service(service, config).answer(PROMPTS, temperature=0.0, seed=1)
    ours = locally(config).answer(PROMPTS, temperature=0.0, seed=1)
    assert [(one.tokens, one.text) for one in theirs] == [(one.tokens, one.text) for one in ours]


def test_the_sampler_follows_the_weights(service, small_model, tmp_path):
    policy = by_service(service, grpo_config(small_model, tmp_path, {"beta": 0.0}))
    before = policy.sample(PROMPTS, keys(0))
    list(policy.update(credited(before, 0)))
    after = policy.sample(PROMPTS, keys(0))
    assert before != after
    groups = credited(after, 1)
    assert next(iter(policy.update(groups))).gap_max < TOLERANCE


def test_a_run_by_a_service_leaves_the_folder_of_any_run_and_is_measured(url, small_model, tmp_path):
    config = grpo_config(small_model, tmp_path / "ckpts")
    screen = io.StringIO()
    result = run_grpo(config, output=tmp_path / "run", stream=screen)
    assert (result.status, result.num_steps) == ("finished", 4)
    local = replace(config, backend="local", training=replace(config.training, checkpoint_dir=str(tmp_path / "other")))
    run_grpo(local, output=tmp_path / "local", stream=io.StringIO())
    rows, wanted = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("run", "local"))
    extra = {f"tinker_tokens_{kind}" for kind in ("prefill", "cached", "sample", "train")}
    assert [row.keys() - extra for row in rows] == [row.keys() for row in wanted]
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "local").iterdir()
    }
    assert max(row["sampler_gap_max"] for row in rows) < TOLERANCE
    assert len(list(read_rollouts(tmp_path / "run", 1))) == 2 * SIBLINGS
    assert rows[-1]["tinker_tokens_sample"] >= rows[-1]["tokens"]
    told = evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(tmp_path / "run")), stream=io.StringIO())
    assert told.is_file()
    with pytest.raises(InputError, match="its weights are with the service that trains them"):
        evaluate_checkpoint(EvaluateSettings(checkpoint_dir=str(tmp_path / "ckpts")), stream=io.StringIO())
    assert "is trained by the service at" in screen.getvalue()
    assert b"tml-local" not in b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    manifest = json.loads((tmp_path / "run" / "run_manifest.json").read_text())
    assert manifest["training_config"]["backend"] == "tinker"


def test_a_run_that_was_stopped_ends_as_one_that_was_not(url, small_model, tmp_path):
    whole = grpo_config(small_model, tmp_path / "whole-ckpts")
    run_grpo(whole, output=tmp_path / "whole", stream=io.StringIO())
    config = grpo_config(small_model, tmp_path / "ckpts")
    assert run_grpo(config, output=tmp_path / "part", stream=Stopper("step 3")).status == "interrupted"
    assert run_grpo(config, output=tmp_path / "part", stream=io.StringIO()).status == "finished"
    for step in range(1, 5):
        said, wanted = (list(read_rollouts(tmp_path / name, step)) for name in ("part", "whole"))
        assert [one["tokens"] for one in said] == [one["tokens"] for one in wanted]
    # A service answers whatever waits together, which decides last bits of what it tells.
    rows, wanted = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("part", "whole"))
    for mine, theirs in zip(rows, wanted, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine.keys() - {"timestamp", "tokens_per_second"}:
            if not name.endswith("_seconds"):
                assert mine[name] == pytest.approx(theirs[name], rel=TOLERANCE, abs=TOLERANCE), name


class Stopper(io.StringIO):
    """A screen whose reader asks the run to stop as soon as it shows `at`."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def write(self, text: str) -> int:
        import os
        import signal

        if self.at in text:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)
