"""Policies of remat: the same gradient, less memory, and a clear no where the device cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.config.schema import OptimizerSettings
from tracetune.core.errors import InputError
from tracetune.engine.plan import Update, update_program
from tracetune.models import remat as policies
from tracetune.models.arch import arch_from_hf
from tracetune.models.remat import checkpointed
from tracetune.models.transformer import forward, init_params

pytestmark = pytest.mark.slow

SHAPE = {"model_type": "qwen3", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
SMALL = arch_from_hf({**SHAPE, "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2})
NAMES = (False, True, "dots", "offload")


def gradient(remat):
    tokens_BT = jnp.asarray(np.random.default_rng(0).integers(0, 40, (2, 12)), jnp.int32)
    ones_BT, positions_BT = jnp.ones((2, 12), jnp.int32), jnp.broadcast_to(jnp.arange(12), (2, 12))

    def loss(params):
        hidden = forward(params, SMALL, tokens_BT, segments_BT=ones_BT, positions_BT=positions_BT, remat=remat)
        return jnp.sum(jnp.square(hidden[..., 0]))

    return jax.jit(jax.value_and_grad(loss))(init_params(jax.random.key(0), SMALL))


@pytest.mark.long
def test_every_policy_gives_the_same_loss_and_gradient():
    plain_loss, plain = gradient(False)
    for name in NAMES[1:]:
        loss, found = gradient(name)
        np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), found, plain)


@pytest.mark.long
def test_each_policy_keeps_less_than_the_one_before_it():
    deep = arch_from_hf(
        {**SHAPE, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 40}
    )
    kept = {
        name: update_program(
            Update(arch=deep, optimizer=OptimizerSettings(), lora=None, remat=name, shape=(1, 2, 512), dtype=None)
        ).temporaries
        for name in (False, "dots", True)
    }
    assert kept[False] > 1.1 * kept["dots"] > 1.1 * 1.1 * kept[True]


def layer(is_static: bool, x):
    return x if is_static else -x


def test_offload_is_refused_by_name_where_there_is_no_pinned_memory(monkeypatch):
    checkpointed(layer, "offload")
    monkeypatch.setattr(policies, "_memories", lambda: ["device"])
    with pytest.raises(InputError, match=r"training\.gradient_checkpointing: offload: needs pinned host memory.*dots"):
        checkpointed(layer, "offload")
    checkpointed(layer, "dots")
