"""Predicted memory is that of the programs a run compiles; a deep model is foretold by two shallow ones."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.backends.local import LocalBackend
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.core.values import Batch
from tracetune.engine.plan import (
    Program,
    Update,
    _update_at,
    analyse,
    at_depth,
    bounds,
    over_layers,
    peak,
    update_program,
)
from tracetune.engine.plan_rollout import Rollout, rollout_bounds, rollout_phases
from tracetune.models.arch import arch_from_hf
from tracetune.models.choice import Settings
from tracetune.models.tiny import tiny_arch, tiny_model

pytestmark = pytest.mark.slow

SHAPE = {"model_type": "qwen3", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
ARCH = arch_from_hf({**SHAPE, "vocab_size": 512, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 8})


def update(arch=ARCH, *, lora=None, shape=(1, 2, 64)) -> Update:
    return Update(arch=arch, optimizer=OptimizerSettings(), lora=lora, remat=False, shape=shape, dtype=None)


@pytest.mark.long
@pytest.mark.parametrize("lora", [None, pytest.param(LoraSettings(r=4), marks=pytest.mark.soak)])
def test_the_prediction_is_of_the_very_program_that_a_run_compiles(lora):
    config = load_sft_config(None, ["model=tiny", "model.max_length=64", "batch_size=2"])
    config = replace(config, model=replace(config.model, lora=lora))
    backend = LocalBackend(tiny_model(), config, num_steps=2, max_segment=64)
    ones = np.ones((2, 64), np.int32)
    backend.train_step([Batch(ones, ones, ones.astype(np.float32), ones, np.tile(np.arange(64), (2, 1)))])
    (compiled,) = backend._train_step._compiled.values()
    planned = replace(update(tiny_arch(), lora=lora), max_segment=64, dtype=jnp.float32)
    assert update_program(planned) == analyse(compiled)


@pytest.mark.long
def test_a_deep_model_is_foretold_by_two_shallow_ones():
    programs = {depth: update_program(update(at_depth(ARCH, depth))) for depth in (2, 4)}
    foretold = over_layers(ARCH, lambda arch: programs[arch.num_layers], exact=False)
    whole = over_layers(ARCH, partial(_update_at, update()), exact=True)
    assert foretold.arguments == whole.arguments
    assert foretold.peak == pytest.approx(whole.peak, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, LoraSettings(r=4)])
def test_the_bounds_enclose_what_is_compiled(lora):
    planned = update(at_depth(ARCH, 2), lora=lora, shape=(2, 2, 64))
    low, high = bounds(planned)
    assert low <= update_program(planned).peak <= high


@pytest.mark.slow
def test_sampling_is_planned_with_its_caches_at_their_largest():
    small = Rollout(
        arch=at_depth(ARCH, 2),
        lora=None,
        dtype=None,
        num_slots=8,
        num_generations=4,
        all_at_once=True,
        longest_prompt=100,
        max_tokens=100,
        settings=Settings(sample=True, top_k=None, filter_p=False),
    )
    assert (small.room, small.said_room, small.num_blocks) == (128, 128, 2)
    assert (replace(small, max_tokens=64).said_room, replace(small, all_at_once=False).num_blocks) == (64, 8)
    found = rollout_phases(small, beside=10**6)
    low, high = rollout_bounds(small)
    assert 10**6 + low <= peak(found) <= 10**6 + high


def test_depth_keeps_the_pattern_of_sliding_layers():
    gemma = arch_from_hf({"model_type": "gemma3_text", "num_hidden_layers": 13, "vocab_size": 64})
    assert at_depth(gemma, 6).sliding_layers == (0, 1, 2, 3, 4)
    seen = []

    def program_of(arch) -> Program:
        seen.append(arch.num_layers)
        return Program(arch.num_layers, 0, 2 * arch.num_layers + 5)

    assert over_layers(gemma, program_of, exact=False) == Program(13, 0, 31)
    assert seen == [6, 12]
    assert over_layers(gemma, program_of, exact=True) == Program(13, 0, 31)


def test_planning_allocates_nothing():
    before = len(jax.live_arrays())
    bounds(
        update(
            arch_from_hf(
                {
                    **SHAPE,
                    "vocab_size": 150_000,
                    "hidden_size": 8192,
                    "intermediate_size": 30_000,
                    "num_hidden_layers": 80,
                }
            )
        )
    )
    assert len(jax.live_arrays()) <= before + 2
