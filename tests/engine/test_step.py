"""One optimizer step: what it must equal, what it must refuse, what it must not do twice."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.config.schema import LoraSettings, OptimizerSettings
from tracetune.core.values import Batch
from tracetune.engine import step as step_module
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.step import init_state, make_train_step, run_forward, stack_batches
from tracetune.models.arch import arch_from_hf
from tracetune.models.lora import init_lora
from tracetune.models.transformer import forward, head_weights, init_params
from tracetune.objectives.sft import sft_loss

pytestmark = pytest.mark.slow

ARCH = arch_from_hf(
    {
        "model_type": "qwen3",
        "vocab_size": 40,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "tie_word_embeddings": True,
    }
)
OPTIMIZER = make_optimizer(OptimizerSettings(learning_rate=1e-2, weight_decay=0.1), 10)
STEP = make_train_step(ARCH, OPTIMIZER)  # shared: compiling takes longer than all else here
LENGTH = 12


def params():
    return init_params(jax.random.key(0), ARCH)


def batch(num_rows: int, *, seed: int = 0, share: float = 0.5) -> Batch:
    """Random rows of two segments; about `share` of the tokens are targets."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 40, (num_rows, LENGTH + 1))
    weights = (rng.random((num_rows, LENGTH)) < share).astype(np.float32)
    segments = np.repeat([[1] * 7 + [2] * 5], num_rows, axis=0)
    positions = np.repeat([[*range(7), *range(5)]], num_rows, axis=0)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights, segments, positions)


def rows_of(whole: Batch, rows: slice) -> Batch:
    return Batch(*(stream[rows] for stream in whole[:5]))


def take(step, stack, *, trained=None, frozen=None):
    state = init_state(params() if trained is None else trained, OPTIMIZER)
    return step(state, frozen, stack)


def test_loss_and_gradient_are_those_of_the_plain_computation():
    whole = batch(2)
    arrays = [jnp.asarray(stream) for stream in whole[:5]]

    def plain(params):
        tokens_BT, targets_BT, weights_BT, segments_BT, positions_BT = arrays
        hidden_BTD = forward(params, ARCH, tokens_BT, segments_BT=segments_BT, positions_BT=positions_BT)
        logprobs_BTV = jax.nn.log_softmax(hidden_BTD @ head_weights(params, ARCH).T, axis=-1)
        logprobs_BT = jnp.take_along_axis(logprobs_BTV, targets_BT[..., None], axis=-1)[..., 0]
        return sft_loss(logprobs_BT, weights_BT, jnp.sum(weights_BT))[0]

    loss, gradient = jax.jit(jax.value_and_grad(plain))(params())
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(gradient)))
    _, metrics = take(STEP, stack_batches([whole]))
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, norm, rtol=1e-4)
    assert metrics.num_targets == whole.weights_BT.sum()
    assert metrics.learning_rate == np.float32(1e-2)


def test_accumulation_equals_one_large_batch():
    # Halves with unequal numbers of targets: a mean of means would differ.
    whole = batch(4)
    whole.weights_BT[:2] *= np.arange(LENGTH) < 3
    at_once, one = take(STEP, stack_batches([whole]))
    halves = [rows_of(whole, slice(0, 2)), rows_of(whole, slice(2, 4))]
    in_parts, other = take(make_train_step(ARCH, OPTIMIZER, pass_tokens=1), stack_batches(halves))
    np.testing.assert_allclose(other.loss, one.loss, rtol=1e-6)
    np.testing.assert_allclose(other.grad_norm, one.grad_norm, rtol=1e-5)
    # Adam's first update is the sign of the gradient, so moments are compared.
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), in_parts.opt_state, at_once.opt_state)


def test_a_shape_is_compiled_once():
    state = init_state(params(), OPTIMIZER)
    STEP.compile(state, None, stack_batches([batch(2)]))
    compiled = STEP.num_compilations
    for seed in range(3):
        # The number of targets, and so of the head's chunks, differs from step to step.
        state, _ = STEP(state, None, stack_batches([batch(2, seed=seed, share=0.2 + 0.3 * seed)]))
    assert STEP.num_compilations == compiled
    assert state.step == 3
    STEP(state, None, stack_batches([batch(1)]))
    assert STEP.num_compilations == compiled + 1


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_diverged_step_leaves_the_state_as_it_was(poison):
    good = batch(2)
    state, _ = take(STEP, stack_batches([good]))
    kept = jax.tree.map(np.asarray, state)
    bad = good._replace(weights_BT=np.where(good.weights_BT > 0, np.float32(poison), np.float32(0)))
    after, metrics = STEP(state, None, stack_batches([bad]))
    assert not metrics.finite
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, after), kept)
    onward, metrics = STEP(after, None, stack_batches([good]))
    assert metrics.finite
    assert onward.step == 2


@pytest.mark.slow
def test_an_adapter_learns_and_its_base_stays():
    base, lora = params(), init_lora(jax.random.key(1), ARCH, LoraSettings(r=2, alpha=4.0))
    kept = jax.tree.map(np.asarray, base)
    step = make_train_step(ARCH, OPTIMIZER, lora_scale=2.0)
    state = init_state(lora, OPTIMIZER)
    stack = stack_batches([batch(2)])
    losses = []
    for _ in range(8):
        state, metrics = step(state, base, stack)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0] - 0.01
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, base), kept)


@pytest.mark.slow
def test_recomputing_layers_changes_nothing_but_memory():
    stack = stack_batches([batch(2)])
    _, plain = take(STEP, stack)
    _, recomputed = take(make_train_step(ARCH, OPTIMIZER, remat=True), stack)
    np.testing.assert_allclose(recomputed.loss, plain.loss, rtol=1e-6)
    np.testing.assert_allclose(recomputed.grad_norm, plain.grad_norm, rtol=1e-5)


def test_a_step_of_several_passes_traces_its_loss_once(monkeypatch):
    calls = []
    monkeypatch.setattr(step_module, "run_forward", lambda *args, **how: calls.append(1) or run_forward(*args, **how))
    stack = stack_batches([batch(2)] * 3)
    state = jax.eval_shape(lambda: init_state(params(), OPTIMIZER))
    make_train_step(ARCH, OPTIMIZER).lower(state, None, stack)
    assert len(calls) == 1
