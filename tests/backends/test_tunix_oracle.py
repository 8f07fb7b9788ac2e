"""Tunix as an oracle: for the same files, batches and settings its loss and gradient norm are ours, step by step."""

import json
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from tests.backends.fixtures.tunix_oracle import (
    FIXTURE,
    LENGTH,
    NUM_STEPS,
    OPTIMIZER,
    ROWS,
    cases,
    examples,
    random_model,
    tunix_steps,
)

from tracetune.backends.local import LocalBackend
from tracetune.config.schema import ModelSettings, OptimizerSettings, SftConfig
from tracetune.data.pack import make_batch

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
ORACLE = json.loads(FIXTURE.read_text())["cases"]


def our_steps(name: str, optimizer: OptimizerSettings = OPTIMIZER) -> list[tuple[float, float]]:
    """The same five steps by the local backend."""
    model = random_model(cases()[name])
    config = SftConfig(model=ModelSettings(max_length=LENGTH, packing=False), optimizer=optimizer)
    backend = LocalBackend(model, config, num_steps=NUM_STEPS)
    rows = [(place,) for place in range(ROWS)]
    told = []
    for step in range(NUM_STEPS):
        batch = make_batch(rows, examples(step, model.arch.vocab_size), max_length=LENGTH, pad_id=0)
        metrics = backend.train_step([batch])
        told.append((metrics.loss, metrics.grad_norm))
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "qwen3_tied" else pytest.mark.long) for name in sorted(ORACLE)]
)
def test_loss_and_gradient_norm_are_those_of_tunix_for_five_steps(name):
    ours = np.array(our_steps(name))
    theirs = np.stack([ORACLE[name]["losses"], ORACLE[name]["grad_norms"]], axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
def test_the_oracle_sees_an_optimizer_that_differs():
    other = OptimizerSettings(**{**vars(OPTIMIZER), "max_grad_norm": None, "weight_decay": 0.0, "beta1": 0.8})
    ours = [loss for loss, _ in our_steps("qwen3_tied", other)]
    assert abs(ours[0] - ORACLE["qwen3_tied"]["losses"][0]) < TOLERANCE
    assert max(abs(a - b) for a, b in zip(ours, ORACLE["qwen3_tied"]["losses"], strict=True)) > 10 * TOLERANCE


def test_the_fixture_has_every_case_and_five_steps_of_each():
    assert set(ORACLE) == set(cases())
    assert {len(numbers) for told in ORACLE.values() for numbers in told.values()} == {NUM_STEPS}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tunix") is None, reason='Tunix is not installed: pip install "tracetune[tunix]"')
@pytest.mark.parametrize("name", sorted(ORACLE))
def test_tunix_still_says_what_the_fixture_recorded(name):
    # Tunix mixes dtypes and ranks on purpose; the strictness of these tests is for our code.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        told = tunix_steps(name)
    for metric, numbers in told._asdict().items():
        np.testing.assert_allclose(numbers, ORACLE[name][metric], rtol=TOLERANCE, atol=TOLERANCE)
