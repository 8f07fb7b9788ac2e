"""Recipes of tinker-cookbook, as they were published, finish against our own Tinker; `math_rl` raises its reward."""

import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests.api import cookbook

from tracetune.models.load import load_folder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (cookbook.ENVIRONMENT / ".ready").exists(),
        reason="needs tinker-cookbook in an environment of its own: make cookbook-env",
    ),
]
GROUP = 20
# Each with settings that let it take seconds; the first takes the longest.
RECIPES = {
    "math_rl": (
        "math_rl.train",
        f"env=arithmetic groups_per_batch={cookbook.SUMS} group_size={GROUP} max_steps={cookbook.BATCHES} "
        "loss_fn=importance_sampling learning_rate=2e-3 eval_every=0 save_every=0",
    ),
    # As it is by default in the loss, which is not published: ppo stands in for it.
    "math_rl async": (
        "math_rl.train",
        "env=arithmetic groups_per_batch=4 group_size=8 max_steps=3 max_steps_off_policy=1 learning_rate=1e-3",
    ),
    "sl_loop": ("sl_loop", "batch_size=4 max_steps=3 save_every=2"),
    "rl_loop": ("rl_loop", "batch_size=4 group_size=8 max_steps=2 max_tokens=16"),
    "dpo": ("preference.dpo.train", "batch_size=4 max_steps=2"),
    "distillation": (
        "distillation.on_policy_distillation",
        f"teacher_model={cookbook.TEACHER} groups_per_batch=2 group_size=4 max_steps=2 max_tokens=8",
    ),
}


class Ended(NamedTuple):
    """One recipe's end: its exit code, what it printed, and what it measured, by step."""

    code: int
    said: str
    metrics: list[dict[str, Any]]


class Kitchen:
    """All recipes, two at a time, on one server."""

    def __init__(self, ends: dict[str, "Future[Ended]"], root: Path, taught: Path, url: str) -> None:
        self._ends, self.root, self.taught, self.url = ends, root, taught, url

    def end(self, name: str) -> Ended:
        ended = self._ends[name].result()
        assert ended.code == 0, ended.said[-4_000:]
        return ended


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    root = tmp_path_factory.mktemp("cookbook")
    cookbook.make_untaught(root / "untaught")
    taught = cookbook.teach(root / "untaught", root)
    cookbook.make_workplace(root / "workplace", taught)
    aliases = {cookbook.STUDENT: taught, cookbook.TEACHER: root / "untaught"}
    with cookbook.tinker_server(root / "home", aliases) as url, ThreadPoolExecutor(2) as pool:

        def run(name: str) -> Ended:
            recipe, settings = RECIPES[name]
            log = root / name.replace(" ", "-")
            code, said = cookbook.run_recipe(recipe, settings.split(), url=url, workplace=root / "workplace", log=log)
            file = log / "metrics.jsonl"
            metrics = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
            return Ended(code, said, metrics)

        yield Kitchen({name: pool.submit(run, name) for name in RECIPES}, root, taught, url)


def values(ended: Ended, name: str) -> list[float]:
    """A metric by step, finite wherever it was measured."""
    found = [row[name] for row in ended.metrics if name in row]
    assert all(math.isfinite(value) for value in found), found
    return found


def test_sl_loop_takes_its_steps_and_keeps_checkpoints(kitchen):
    ended = kitchen.end("sl_loop")
    assert len(values(ended, "train_mean_nll")) == 3
    assert all(norm > 0 for norm in values(ended, "grad_norm"))
    kept = (kitchen.root / "sl_loop" / "checkpoints.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in kept] == ["000002", "final"]


def test_rl_loop_steps_on_the_rewards_of_groups(kitchen):
    ended = kitchen.end("rl_loop")
    assert [0 < reward < 1 for reward in values(ended, "reward/total")] == [True, True]
    assert all(norm > 0 for norm in values(ended, "grad_norm"))


def test_dpo_begins_at_the_reference_and_leaves_it(kitchen):
    first, second = values(kitchen.end("dpo"), "dpo_loss")
    assert abs(first - math.log(2)) < 1e-4
    assert second < first


def test_distillation_measures_its_distance_to_the_teacher(kitchen):
    ended = kitchen.end("distillation")
    assert [distance > 0.1 for distance in values(ended, "teacher_kl")] == [True, True]
    assert all(norm > 0 for norm in values(ended, "grad_norm"))


def test_math_rl_learns_from_samples_of_a_step_before(kitchen):
    ended = kitchen.end("math_rl async")
    assert len(values(ended, "env/all/correct")) == 3
    assert max(values(ended, "async/staleness_max")) == 1
    assert max(values(ended, "grad_norm")) > 0
    # Log-probs of the sampler are those of the trainer, so what is left is what a step changed.
    assert abs(values(ended, "optim/kl_sample_train_v1")[0]) < 1e-3


def test_math_rl_visibly_raises_its_reward(kitchen):
    """Against the exact probability with which the model, left alone, is right about the same sums."""
    ended = kitchen.end("math_rl")
    rewards = np.array(values(ended, "env/all/correct"))
    model = load_folder(kitchen.taught)
    alone = np.array([cookbook.right_by_itself(model, batch) for batch in range(cookbook.BATCHES)])
    assert len(rewards) == cookbook.BATCHES
    # Of 3 x 20 samples the mean has a standard error of at most 0.065: nothing was learnt before the first step,
    assert abs(rewards[0] - alone[0]) < 4 * 0.065
    # and of the last four steps' 240 of at most 0.033: this rise is six of them.
    assert (rewards[-4:] - alone[-4:]).mean() > 0.2, (rewards, alone)
    assert max(abs(gap) for gap in values(ended, "optim/kl_sample_train_v1")) < 1e-3


def test_losses_of_ones_own_lead_where_the_built_in_ones_do(kitchen):
    """By torch on the client, which only this environment has."""
    program = Path(__file__).with_name("tinker_custom_loss.py")
    done = cookbook.run_program([str(program), cookbook.STUDENT], url=kitchen.url, workplace=kitchen.root / "workplace")
    assert done.returncode == 0, done.stderr[-4_000:]
    told = json.loads(done.stdout)
    assert len(told) == 4
    for name, found in told.items():
        built_in, own = found["losses"]
        assert abs(own - built_in) <= 1e-4 * abs(built_in), name
        assert found["difference"] < 1e-4 < 1.0 < found["moved"], (name, found)
