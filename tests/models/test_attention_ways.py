"""Attention for accelerators: each kernel against blocks, run as plain JAX; and which of them is taken.

What runs here is Pallas' interpreter; the checks that a device makes of itself are tested, their verdict on a real one
is `bench/gpu.py`'s.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tracetune.core.errors import InputError
from tracetune.models import attention_ways
from tracetune.models.attention_blocks import Seen, attend_in_blocks
from tracetune.models.attention_cudnn import ragged
from tracetune.models.attention_splash import attend_by_splash
from tracetune.models.attention_triton import attend_by_triton
from tracetune.models.attention_ways import Ask, Told, check, refusal

pytestmark = pytest.mark.slow

PLAIN = Ask(32, "bfloat16", False, None, False)
triton = partial(attend_by_triton, interpret=True)
splash = partial(attend_by_splash, interpret=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "ask"),
    [(triton, Ask(16, "bfloat16", True, 5.0, True)), (splash, Ask(128, "bfloat16", True, 5.0, False))],
)
def test_a_kernel_computes_what_blocks_compute(way, ask):
    """In float32, where only the order of sums is left."""
    arrays, seen = attention_ways._small_row(ask._replace(dtype="float32"))
    found = attention_ways._value_and_gradients(way, seen, arrays)
    for one, other in zip(found, attention_ways._value_and_gradients(attend_in_blocks, seen, arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("way", [triton, splash])
def test_the_check_runs_while_something_larger_is_traced(way):
    told = []

    @jax.jit
    def trace(x):
        told.append(check(way, PLAIN))
        return x

    trace(jnp.ones(()))
    assert told == [None]


def blind_to(field, value):
    """A way that is wrong in one respect."""

    def way(q, k, v, seen):
        return attend_in_blocks(q, k, v, seen._replace(**{field: value}))

    return way


@pytest.mark.slow
def test_the_check_sees_every_mistake():
    ask = Ask(16, "bfloat16", True, 5.0, True)
    for field, value in (("window", None), ("stem", None), ("scale", jnp.nan)):
        assert "differs by" in check(blind_to(field, value), ask)

    def wrong_gradient(q, k, v, seen):
        return attend_in_blocks(jax.lax.stop_gradient(q), k, v, seen)

    assert "d_queries" in check(wrong_gradient, ask)

    def missing(q, k, v, seen):
        raise NotImplementedError("no such kernel")

    assert check(missing, ask) == "NotImplementedError: no such kernel"


def test_what_is_refused_gives_way_to_the_next(monkeypatch):
    monkeypatch.setitem(attention_ways.WAYS, "triton", blind_to("scale", 0.1))
    monkeypatch.setitem(attention_ways.WAYS, "cudnn", attend_in_blocks)
    told = attention_ways._choose(PLAIN, "gpu", "auto")
    assert told.way == "cudnn"
    assert "triton: its output differs" in told.refused[0]
    assert attention_ways._choose(PLAIN._replace(dtype="float32"), "gpu", "auto").way == "blocks"
    assert attention_ways._choose(PLAIN, "cpu", "auto") == Told("blocks", ())
    assert attention_ways._choose(PLAIN, "gpu", "blocks") == Told("blocks", ())
    with pytest.raises(InputError, match="TRACETUNE_ATTENTION"):
        attention_ways._choose(PLAIN, "gpu", "flash")
    assert attention_ways._tell(PLAIN._replace(has_window=True), Told("blocks", ("triton: it broke",))) == (
        "heads of 32 in bfloat16 with window: blocks (not triton: it broke)"
    )


def test_known_refusals():
    assert "soft-cap" in refusal("cudnn", PLAIN._replace(softcap=30.0))
    assert "shared prompts" in refusal("cudnn", PLAIN._replace(has_stem=True))
    assert "shared prompts" in refusal("splash", PLAIN._replace(has_stem=True))
    assert "power of two" in refusal("triton", PLAIN._replace(head_size=80))
    assert "exactly" in refusal("triton", PLAIN._replace(dtype="float32"))
    assert refusal("triton", PLAIN._replace(has_stem=True, softcap=30.0)) is None
    assert refusal("cudnn", PLAIN._replace(head_size=80)) is None


def test_cudnn_gets_every_segment_as_a_sequence_of_its_own():
    segments_BT = jnp.asarray([[1] * 3 + [2] * 4 + [0], [5] * 8])
    lengths_BM, offsets_BM, fits = ragged(segments_BT)
    np.testing.assert_array_equal(lengths_BM, [[3, 4, 1, -1], [8, -1, -1, -1]])
    np.testing.assert_array_equal(offsets_BM, [[0, 3, 7, -1, -1], [0, -1, -1, -1, -1]])
    assert fits
    assert not ragged(jnp.arange(8)[None])[2]


@pytest.mark.parametrize("way", [attend_by_triton, attend_by_splash])
def test_kernels_lower_for_their_device(way):
    """Down to the kernel's own code, which is as far as a machine without the device goes."""
    q = jax.ShapeDtypeStruct((1, 256, 4, 128), jnp.bfloat16)
    kv = jax.ShapeDtypeStruct((1, 256, 2, 128), jnp.bfloat16)
    segments_BT = jax.ShapeDtypeStruct((1, 256), jnp.int32)

    def gradient(q, k, v, segments_BT):
        return jax.grad(lambda q: jnp.sum(way(q, k, v, Seen(segments_BT, 0.1, 64)).astype(jnp.float32)))(q)

    platform = "cuda" if way is attend_by_triton else "tpu"
    lowered = jax.jit(gradient).trace(q, kv, kv, segments_BT).lower(lowering_platforms=(platform,)).as_text()
    name = "__gpu$xla.gpu.triton" if platform == "cuda" else "tpu_custom_call"
    assert name in lowered
