"""Causal attention within segments: one function, computed by the best way that this device has proved.

Every way means the same. `blocks` is plain XLA and always there; `triton` and `cudnn` are for NVIDIA, `splash` for TPU.
A way that cannot do what is asked, or whose check on this device fails, gives way to the next; `ways_told` says why.
Shapes: B sequences, T tokens, H heads, N kv heads, K head size.
"""

from typing import TYPE_CHECKING

import jax
from jaxtyping import Array, Float, Int

from tracetune.models.attention_blocks import Seen, Stem, attend_in_blocks

if TYPE_CHECKING:
    from tracetune.models.attention_ways import Way

__all__ = ["Stem", "attend", "ways_told"]


def attend(
    q_BTHK: Float[Array, "B T H K"],
    k_BTNK: Float[Array, "B T N K"],
    v_BTNK: Float[Array, "B T N K"],
    *,
    segments_BT: Int[Array, "B T"],
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    max_segment: int | None = None,
    stem: Stem | None = None,
) -> Float[Array, "B T H K"]:
    """Each token's mixture of the values of its own segment, itself and before; softmax in float32.

    `window` counts the tokens seen, the own one included. `max_segment` is a promise that no segment but padding is
    longer, which lets distant keys be skipped; it means nothing with a `stem`. Segments must be contiguous.
    """
    seen = Seen(segments_BT, scale, window, softcap, max_segment, stem)
    return _way_of(q_BTHK, seen)(q_BTHK, k_BTNK, v_BTNK, seen)


def _way_of(q_BTHK: jax.Array, seen: Seen) -> "Way":
    if jax.default_backend() == "cpu":
        return attend_in_blocks
    from tracetune.models.attention_ways import Ask, way_of

    return way_of(Ask.of(q_BTHK, seen))


def ways_told() -> list[str]:
    """How each kind of attention of this process was computed; on a CPU there is nothing to tell."""
    if jax.default_backend() == "cpu":
        return []
    from tracetune.models import attention_ways

    return attention_ways.ways_told()
