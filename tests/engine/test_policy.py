"""Sharing a prompt saves work and changes no number; the step's facts are those of its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.config.schema import OptimizerSettings
from tracetune.data.pack_groups import Branch, Group, GroupBatch, pack_groups
from tracetune.engine.optimizer import make_optimizer
from tracetune.engine.policy import make_scorer, policy_step_loss, stack_groups
from tracetune.engine.step import init_state, make_train_step
from tracetune.models.arch import arch_from_hf
from tracetune.models.transformer import init_params
from tracetune.objectives.grpo import Clip, Objective

pytestmark = pytest.mark.slow

VOCAB, TEMPERATURE = 50, 0.7
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
ARCHS = {
    "qwen3": arch_from_hf(BASE | {"model_type": "qwen3"}),
    # Windows shorter than the prompt, and a soft-capped head.
    "gemma2": arch_from_hf(
        BASE
        | {
            "model_type": "gemma2",
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        }
    ),
}
OPTIMIZER = make_optimizer(OptimizerSettings(learning_rate=1e-2, max_grad_norm=None), 10)
OBJECTIVE = Objective("grpo", Clip(0.2, 0.2), 0.04, 8)


def params(arch):
    return init_params(jax.random.key(0), arch)


def made_groups() -> list[Group]:
    rng = np.random.default_rng(0)
    return [
        Group(
            rng.integers(1, VOCAB, size).tolist(),
            [
                Branch(rng.integers(1, VOCAB, n).tolist(), float(rng.normal()), rng.normal(-2, 0.3, n).tolist())
                for n in lengths
            ],
        )
        for size, lengths in ((7, (5, 2, 8)), (9, (1, 6)), (1, (4,)))
    ]


def taken(arch, batch: GroupBatch, *, ref=None, first_pass=True):
    loss_of = policy_step_loss(OBJECTIVE, temperature=TEMPERATURE, softcap=arch.logit_softcap, first_pass=first_pass)
    step = make_train_step(arch, OPTIMIZER, loss_of=loss_of)
    stack = stack_groups(batch)._replace(ref_ABT=ref)
    return step(init_state(params(arch), OPTIMIZER), None, stack)


@pytest.mark.parametrize("family", ["qwen3", pytest.param("gemma2", marks=pytest.mark.long)])
@pytest.mark.parametrize("first_pass", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_sharing_a_prompt_changes_no_number(family, first_pass):
    arch = ARCHS[family]
    each = [Group(group.prompt, [branch]) for group in made_groups() for branch in group.branches]
    alone = pack_groups(each, row_length=17, num_rows=6, pad_id=0)
    shared = pack_groups(made_groups(), row_length=64, num_rows=1, pad_id=0)
    (one, expected), (other, got) = (taken(arch, batch, first_pass=first_pass) for batch in (alone, shared))
    assert got.loss == pytest.approx(float(expected.loss), abs=2e-6)
    assert got.grad_norm == pytest.approx(float(expected.grad_norm), rel=1e-5)
    assert got.facts.sums["gap"] == pytest.approx(float(expected.facts.sums["gap"]), rel=1e-5)
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-4)


@pytest.mark.parametrize("family", sorted(ARCHS))
def test_a_branch_does_not_see_its_siblings(family):
    arch = ARCHS[family]
    score = make_scorer(arch, temperature=TEMPERATURE)
    group = made_groups()[0]
    packed = pack_groups([group], row_length=32, num_rows=1, pad_id=0)
    other = group._replace(branches=[*group.branches[:2], Branch([9] * 8, 0.0, [0.0] * 8)])
    changed = pack_groups([other], row_length=32, num_rows=1, pad_id=0)
    first, second = (np.asarray(score(params(arch), None, stack_groups(batch))) for batch in (packed, changed))
    # Best-fit puts the longest branch, which differs, first; the two behind it must not have noticed.
    kept = packed.segments_BT[None] > 2
    np.testing.assert_allclose(first[kept], second[kept], atol=1e-5)
    assert np.abs(first - second)[packed.segments_BT[None] == 2].max() > 0.1


def test_rows_without_a_target_cost_nothing_and_change_nothing():
    arch = ARCHS["qwen3"]
    tight = pack_groups(made_groups(), row_length=64, num_rows=1, pad_id=0)
    loose = pack_groups(made_groups(), row_length=64, num_rows=40, pad_id=0)
    _, expected = taken(arch, tight)
    _, got = taken(arch, loose)
    assert got.loss == pytest.approx(float(expected.loss), abs=1e-6)
    assert int(got.num_targets) == 26


def test_the_scorer_agrees_with_the_definition_at_the_sampling_temperature():
    arch = ARCHS["gemma2"]
    weights = params(arch)
    group = made_groups()[1]
    batch = pack_groups([group], row_length=32, num_rows=1, pad_id=0)
    got = np.asarray(make_scorer(arch, temperature=TEMPERATURE)(weights, None, stack_groups(batch)))[0, 0]
    tokens = [*group.prompt, *group.branches[1].tokens]
    from tracetune.models.transformer import forward, head_weights

    hidden = forward(
        weights,
        arch,
        jnp.asarray([tokens]),
        segments_BT=jnp.ones((1, len(tokens)), jnp.int32),
        positions_BT=jnp.arange(len(tokens))[None],
    )
    logits = np.asarray(hidden[0] @ head_weights(weights, arch).T, np.float64)
    logits = 3.0 * np.tanh(logits / 3.0) / TEMPERATURE
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    start = len(group.prompt)
    expected = [logprobs[start - 1 + i, token] for i, token in enumerate(group.branches[1].tokens)]
    at = np.flatnonzero(batch.segments_BT[0] == 2)
    np.testing.assert_allclose(got[at], expected, atol=1e-5)


def test_the_penalty_pulls_towards_the_reference():
    arch = ARCHS["qwen3"]
    batch = pack_groups(made_groups(), row_length=64, num_rows=1, pad_id=0)
    own = make_scorer(arch, temperature=TEMPERATURE)(params(arch), None, stack_groups(batch))
    _, at_home = taken(arch, batch, ref=own)
    assert float(at_home.facts.sums["kl"]) == pytest.approx(0.0, abs=1e-4)
    _, away = taken(arch, batch, ref=own - 0.5)
    assert float(away.facts.sums["kl"]) == pytest.approx(26 * (np.exp(-0.5) + 0.5 - 1), rel=1e-3)
