"""bfloat16 products over float32 masters: what must arrive, what must stay, how near to float32 it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.engine.test_step import ARCH, batch, params

from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import init_state, make_train_step, stack_batches
from tracetune.models.lora import init_lora
from tracetune.models.precision import compute_dtype, in_dtype
from tracetune.models.transformer import forward

pytestmark = pytest.mark.slow


def run(num_steps: int, dtype, *, rate: float = 1e-2, lora: bool = False):
    """State and losses after steps on eight batches in turn; with `lora` an adapter over a base held in `dtype`."""
    optimizer = make_optimizer(
        OptimizerSettings(learning_rate=rate, schedule="constant", max_grad_norm=None), num_steps
    )
    step = make_train_step(ARCH, optimizer, lora_scale=2.0 if lora else None, dtype=dtype)
    trained, frozen = params(), None
    if lora:
        trained, frozen = init_lora(jax.random.key(1), ARCH, LoraSettings(r=4)), in_dtype(params(), dtype)
    state = init_state(trained, optimizer)
    stacks = [stack_batches([batch(4, seed=seed % 8)]) for seed in range(8)]
    losses = []
    for number in range(num_steps):
        state, metrics = step(state, frozen, stacks[number % 8])
        losses.append(float(metrics.loss))
    return state, losses


@pytest.mark.long
def test_a_thousand_updates_below_half_a_step_of_bfloat16_arrive():
    state, _ = run(1000, jnp.bfloat16, rate=1e-6)
    norm, gate = np.asarray(state.params["final_norm"]), np.asarray(state.params["layers"]["gate_proj"])
    # Adam moves a weight by at most the rate, far below 2^-9, half of bfloat16's step below one.
    assert np.abs(norm - 1).max() > 3e-4
    moved = np.abs(gate - np.asarray(params()["layers"]["gate_proj"]))
    assert np.median(moved) > 5e-5
    # The same updates on a weight that is rounded after each are lost.
    rounded = jnp.ones((), jnp.bfloat16)
    for _ in range(1000):
        rounded -= jnp.bfloat16(1e-6)
    assert rounded == 1
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((state.params, state.opt_state)) if leaf.ndim)


@pytest.mark.parametrize("lora", [pytest.param(False, marks=pytest.mark.long), True])
def test_losses_stay_close_to_those_of_float32(lora):
    exact, rounded = (run(24, dtype, rate=1e-2 if lora else 3e-3, lora=lora) for dtype in (jnp.float32, jnp.bfloat16))
    # One rounding to eight bits is 0.004 of a number; the loss falls by many times that.
    np.testing.assert_allclose(rounded[1], exact[1], rtol=0.005)
    assert exact[1][16] < exact[1][0] - 0.1
    assert not np.array_equal(exact[1], rounded[1])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(rounded[0].params))


def test_float32_is_what_it_was_to_the_last_bit():
    one, other = run(3, None), run(3, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, one[0], other[0])
    assert one[1] == other[1]


def test_products_are_bfloat16_and_norms_are_not_rounded():
    tokens_BT = jnp.zeros((1, 8), jnp.int32)

    def hidden(params):
        return forward(params, ARCH, tokens_BT, segments_BT=tokens_BT, positions_BT=tokens_BT, dtype=jnp.bfloat16)

    text = str(jax.make_jaxpr(hidden)(params()))
    assert "f32[1,8,16] = dot_general" not in text
    assert "bf16[8,32] = dot_general" in text or "bf16[8,16] = dot_general" in text
    assert hidden(params()).dtype == jnp.bfloat16
    kept = in_dtype(params(), jnp.bfloat16)
    assert kept["layers"]["attn_norm"].dtype == kept["final_norm"].dtype == jnp.float32
    assert kept["layers"]["q_proj"].dtype == kept["embed"].dtype == jnp.bfloat16


def test_a_cpu_computes_in_float32_unless_told():
    assert compute_dtype(None) == jnp.float32
    assert compute_dtype("bfloat16") == jnp.bfloat16
