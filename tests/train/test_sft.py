"""The loop: every example once an epoch, resumed from integers alone, stopped by a loss that is not finite."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracetune.backends.protocol import StepMetrics
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import Diverged
from tracetune.core.values import Batch, Example
from tracetune.train.info import Position
from tracetune.train.sft import count_steps, train_sft
from tracetune.train.steps import StepPlan


class Unigram:
    """A whole backend over one vector: the log-odds of each token, learnt by plain gradient descent."""

    def __init__(self) -> None:
        self.logits = np.zeros(32)
        self.seen: list[str] = []

    def _loss(self, batches: Sequence[Batch]) -> tuple[float, np.ndarray, int]:
        weights = np.concatenate([batch.weights_BT.ravel() for batch in batches])
        targets = np.concatenate([batch.targets_BT.ravel() for batch in batches])
        counts = np.bincount(targets, weights, minlength=32)
        probabilities = np.exp(self.logits) / np.exp(self.logits).sum()
        num_targets = int(counts.sum())
        loss = -float(counts @ np.log(probabilities)) / num_targets
        return loss, probabilities - counts / num_targets, num_targets

    def train_step(self, batches: Sequence[Batch]) -> StepMetrics:
        self.seen += [trace_id for batch in batches for row in batch.trace_ids for trace_id in row]
        loss, gradient, num_targets = self._loss(batches)
        if math.isfinite(loss):
            self.logits = self.logits - gradient
        return StepMetrics(loss, float(np.linalg.norm(gradient)), 1.0, num_targets)

    def eval_loss(self, batches: Sequence[Batch]) -> float:
        return self._loss(batches)[0]

    def snapshot(self, folder: Path, meta: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True)
        np.save(folder / "logits.npy", self.logits)
        (folder / "meta.json").write_text(json.dumps(meta))

    def restore(self, root: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
        folders = sorted(root.iterdir())
        if not folders:
            warn("nothing to restore")
            return None
        self.logits = np.load(folders[-1] / "logits.npy")
        return json.loads((folders[-1] / "meta.json").read_text())

    def export(self, folder: Path) -> None:
        self.snapshot(folder, {})


def make_plan(num_examples: int = 20, **settings: Any) -> StepPlan:
    rng = np.random.default_rng(0)
    examples = [
        Example(tuple(rng.integers(1, 30, length).tolist()), (0, *[1] * (length - 1)), f"t{index}")
        for index, length in enumerate(rng.integers(3, 12, num_examples))
    ]
    config = load_sft_config(
        {"model": {"max_length": 16}, "training": {"batch_size": 2, "gradient_accumulation_steps": 2}, **settings}
    )
    return StepPlan.from_config(config, examples, pad_id=0)


def run(backend: Unigram, plan: StepPlan, num_steps: int, **settings: Any) -> list:
    return list(train_sft(backend, plan.epoch, num_steps=num_steps, **settings))


@pytest.mark.parametrize("data", [{}, {"shuffle": False}, {"shuffle_seed": 3}])
def test_every_example_is_seen_once_in_every_epoch(data):
    plan, backend = make_plan(data=data), Unigram()
    run(backend, plan, count_steps(plan.epoch, num_epochs=3))
    assert Counter(backend.seen) == {f"t{index}": 3 for index in range(20)}


def test_epochs_differ_in_order_unless_shuffling_is_off():
    def orders(plan: StepPlan) -> list[list]:
        return [[batch.trace_ids for i in range(len(plan.epoch(e))) for batch in plan.epoch(e)[i]] for e in (0, 1)]

    first, second = orders(make_plan())
    assert first != second
    first, second = orders(make_plan(data={"shuffle": False}))
    assert first == second


def test_resuming_at_any_step_goes_on_with_the_same_data(tmp_path):
    plan, whole = make_plan(), Unigram()
    infos = run(whole, plan, 9)
    assert infos[-1].position.epoch >= 1
    for info in infos[:-1]:
        before, after = Unigram(), Unigram()
        run(before, plan, info.position.step)
        before.snapshot(tmp_path / f"{info.position.step:03d}", {"position": info.position._asdict()})
        meta = after.restore(tmp_path, warn=pytest.fail)
        assert meta is not None
        resumed = run(after, plan, 9, start=Position(**meta["position"]))
        assert before.seen + after.seen == whole.seen
        assert after.logits.tobytes() == whole.logits.tobytes()
        assert resumed == infos[info.position.step :]


def test_a_resume_that_forgets_the_cursor_is_noticed():
    plan, whole, forgetful = make_plan(), Unigram(), Unigram()
    infos = run(whole, plan, 3)
    run(forgetful, plan, 3, start=Position(step=1, epoch=0, cursor=0))
    assert forgetful.seen != whole.seen[len(whole.seen) - len(forgetful.seen) :]
    assert infos[0].position.cursor == 1


def test_tokens_count_no_padding():
    plan = make_plan()
    infos = run(Unigram(), plan, len(plan.epoch(0)))
    assert infos[-1].position.tokens == sum(len(example.tokens) - 1 for example in plan.examples)
    assert sum(info.metrics.num_targets for info in infos) == sum(example.num_targets for example in plan.examples)


def test_part_of_an_epoch_is_rounded_up_to_a_step():
    plan = make_plan()
    per_epoch = len(plan.epoch(0))
    assert per_epoch > 1
    assert count_steps(plan.epoch, num_epochs=1) == per_epoch
    assert count_steps(plan.epoch, num_epochs=0.01) == 1
    assert count_steps(plan.epoch, num_epochs=1.5) == per_epoch + math.ceil(len(plan.epoch(1)) / 2)


def test_evaluation_comes_every_so_many_steps_and_at_the_end():
    plan = make_plan()
    held_out = plan.in_order(plan.examples[:3]).epoch(0)[0]
    infos = run(Unigram(), plan, 5, eval_batches=held_out, eval_every=2)
    assert [info.eval_loss is not None for info in infos] == [False, True, False, True, True]
    assert [info.eval_loss for info in run(Unigram(), plan, 2)] == [None, None]


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_its_traces():
    plan, backend = make_plan(), Unigram()
    loop = train_sft(backend, plan.epoch, num_steps=5)
    next(loop)
    backend.logits = np.full(32, np.nan)
    with pytest.raises(Diverged, match=r"step 2: loss is nan .* traces t\d+, t\d+"):
        next(loop)
    healthy = Unigram()
    assert len(run(healthy, plan, 5)) == 5
