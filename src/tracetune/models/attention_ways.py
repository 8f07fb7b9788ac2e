"""Which way of attention a device takes: refusals that are known, then a small check against blocks, once a process.

`TRACETUNE_ATTENTION` names one way, to measure or to rule out; `auto`, the default, takes the first that passes.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tracetune.core.errors import InputError
from tracetune.models.attention_blocks import Seen, Stem, attend_in_blocks
from tracetune.models.attention_cudnn import attend_by_cudnn
from tracetune.models.attention_splash import attend_by_splash
from tracetune.models.attention_triton import attend_by_triton

Way = Callable[[jax.Array, jax.Array, jax.Array, Seen], jax.Array]
SETTING = "TRACETUNE_ATTENTION"
BLOCKS = "blocks"
WAYS: dict[str, Way] = {
    BLOCKS: attend_in_blocks,
    "triton": attend_by_triton,
    "cudnn": attend_by_cudnn,
    "splash": attend_by_splash,
}
# In the order in which they are tried.
_OF_PLATFORM = {"gpu": ("triton", "cudnn"), "cuda": ("triton", "cudnn"), "tpu": ("splash",)}
# The largest difference from blocks in float32, in units of the largest number: bfloat16 has eight bits.
_TOLERANCE = 0.03
_CHECK_LENGTH = 192


class Ask(NamedTuple):
    """What decides whether a way can do it."""

    head_size: int
    dtype: str
    has_window: bool
    softcap: float | None
    has_stem: bool

    @classmethod
    def of(cls, q_BTHK: jax.Array, seen: Seen) -> "Ask":
        """What these queries ask for."""
        windowed = seen.window is not None
        return cls(q_BTHK.shape[-1], q_BTHK.dtype.name, windowed, seen.softcap, seen.stem is not None)


class Told(NamedTuple):
    """A way that was chosen, and why those before it were not."""

    way: str
    refused: tuple[str, ...]


_told: dict[Ask, Told] = {}


def way_of(ask: Ask) -> Way:
    """The function for what is asked, on this device.

    Raises InputError when the environment names a way that does not exist.
    """
    if ask not in _told:
        _told[ask] = _choose(ask, jax.default_backend(), os.environ.get(SETTING, "auto"))
    return WAYS[_told[ask].way]


def ways_told() -> list[str]:
    """One line for each kind of attention computed so far in this process; empty where only blocks are known."""
    return sorted({_tell(ask, told) for ask, told in _told.items()})


def _tell(ask: Ask, told: Told) -> str:
    traits = [
        name for name, has in (("window", ask.has_window), ("soft-cap", ask.softcap), ("stem", ask.has_stem)) if has
    ]
    what = " ".join([f"heads of {ask.head_size} in {ask.dtype}", *(["with", ", ".join(traits)] if traits else [])])
    return f"{what}: {told.way}{''.join(f' (not {reason})' for reason in told.refused)}"


def _choose(ask: Ask, platform: str, setting: str) -> Told:
    if setting not in ("auto", *WAYS):
        raise InputError(f"{SETTING}: must be auto or one of {', '.join(WAYS)}, got {setting!r}")
    refused = []
    for way in candidates(platform) if setting == "auto" else (setting,):
        reason = None if way == BLOCKS else refusal(way, ask) or verdict(way, ask)
        if reason is None:
            return Told(way, tuple(refused))
        refused.append(f"{way}: {reason}")
    return Told(BLOCKS, tuple(refused))


def candidates(platform: str) -> tuple[str, ...]:
    """The ways that are tried on a platform, blocks apart."""
    return _OF_PLATFORM.get(platform, ())


def verdict(way: str, ask: Ask) -> str | None:
    """What the check of a way found wrong on this device, None when nothing."""
    return check(WAYS[way], ask)


def refusal(way: str, ask: Ask) -> str | None:
    """Why a way cannot do what is asked, None when it can."""
    if ask.dtype not in ("bfloat16", "float16"):
        return f"{ask.dtype} is computed exactly, in blocks"
    if way != "cudnn" and jax.device_count() > 1:
        return "XLA does not divide a Pallas kernel over several devices"
    if way == "triton" and (ask.head_size & (ask.head_size - 1) or not 16 <= ask.head_size <= 256):
        return f"heads of {ask.head_size} are no power of two from 16 to 256"
    if way == "cudnn" and (ask.head_size % 8 or ask.head_size > 256):
        return f"heads of {ask.head_size} are no multiple of 8 up to 256"
    if way == "cudnn" and ask.softcap is not None:
        return "it knows no soft-cap"
    if way != "triton" and ask.has_stem:
        return "it knows no shared prompts"
    return None


@lru_cache(maxsize=64)
def check(way: Way, ask: Ask) -> str | None:
    """How a way's output or gradient differs from that of blocks on a small packed row, None when it does not.

    Run in a thread of its own, so at once, also while this one traces a larger program.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_check, way, ask).result()


def _check(way: Way, ask: Ask) -> str | None:
    arrays, seen = _small_row(ask)
    try:
        found = _value_and_gradients(way, seen, arrays)
    except (NotImplementedError, RuntimeError, ValueError, TypeError, ImportError, AttributeError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    exact = _value_and_gradients(attend_in_blocks, seen, [array.astype(np.float32) for array in arrays])
    for name, one, other in zip(("output", "d_queries", "d_keys", "d_values"), found, exact, strict=True):
        far = np.abs(one - other).max() / max(np.abs(other).max(), 1.0)
        if not far <= _TOLERANCE:
            return f"its {name} differs by {far:.2g} from that of blocks"
    return None


def _small_row(ask: Ask) -> tuple[list[np.ndarray], Seen]:
    """Queries, keys, values and a direction, and segments of many lengths of which one may be a stem."""
    rng = np.random.default_rng(0)
    counts = (4, 2, 2, 4)
    shapes = ((2, _CHECK_LENGTH, count, ask.head_size) for count in counts)
    arrays = [rng.normal(size=shape).astype(jnp.dtype(ask.dtype)) for shape in shapes]
    lengths = (1, 30, 60, 40, 37, 24)
    segments_T = np.repeat(np.arange(len(lengths)), lengths)
    positions_T = np.concatenate([np.arange(length) for length in lengths])
    sees_T = segments_T >= 3
    stem_T = (np.where(sees_T, 31, 0), np.where(sees_T, 91, 0), positions_T + np.where(sees_T, 60, 0))
    rows = [np.stack([row, row]).astype(np.int32) for row in (segments_T, *stem_T)]
    stem = Stem(*rows[1:]) if ask.has_stem else None
    return arrays, Seen(rows[0], ask.head_size**-0.5, 48 if ask.has_window else None, ask.softcap, None, stem)


def _value_and_gradients(way: Way, seen: Seen, arrays: list[np.ndarray]) -> list[np.ndarray]:
    *inputs, direction = (jnp.asarray(array) for array in arrays)

    def weigh(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
        out = way(q, k, v, jax.tree.map(_on_device, seen))
        return jnp.sum(out.astype(jnp.float32) * direction.astype(jnp.float32)), out

    (_, out), gradients = jax.jit(jax.value_and_grad(weigh, argnums=(0, 1, 2), has_aux=True))(*inputs)
    return [np.asarray(array, np.float32) for array in (out, *gradients)]


def _on_device(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
