"""Rotary positions (Su et al. 2021): settings from `config.json`, tables of angles, and the rotation.

Shapes: B sequences, T tokens, H heads, K head size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tracetune.core.errors import InputError

RopeKind = Literal["default", "linear", "llama3"]
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclass(frozen=True, kw_only=True)
class Rope:
    """`factor` divides frequencies: all of them (linear), or those that turn slowly (llama3)."""

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


class Angles(NamedTuple):
    """Cosine, and sine with the sign of each half: a head's first half turns against its second."""

    cos: Float[Array, "B T 2 half"]
    sin: Float[Array, "B T 2 half"]


def rope_from_hf(settings: Mapping[str, Any], theta: float) -> Rope:
    """Read `rope_scaling` or one entry of `rope_parameters`; `theta` holds where the settings name none.

    Raises InputError for a type that is not supported or lacks a setting.
    """
    kind = settings.get("rope_type") or settings.get("type") or "default"
    if kind not in _NEEDS:
        raise InputError(f"config.json: rope type {kind!r} is not supported; supported are {', '.join(_NEEDS)}")
    if (share := settings.get("partial_rotary_factor", 1.0)) != 1.0:
        raise InputError(f"config.json: partial_rotary_factor must be 1, got {share}; this variant is not supported")
    missing = [key for key in _NEEDS[kind] if settings.get(key) is None]
    if missing:
        raise InputError(f"config.json: rope type {kind} needs {', '.join(missing)}; add the model's own values")
    theta = float(settings.get("rope_theta") or theta)
    if kind == "default":
        return Rope(theta=theta)
    factor = float(settings["factor"])
    if kind == "linear":
        return Rope(theta=theta, kind="linear", factor=factor)
    return Rope(
        theta=theta,
        kind="llama3",
        factor=factor,
        low_freq_factor=float(settings["low_freq_factor"]),
        high_freq_factor=float(settings["high_freq_factor"]),
        original_max_positions=int(settings["original_max_position_embeddings"]),
    )


def rope_to_hf(rope: Rope) -> dict[str, Any]:
    """One entry of `rope_parameters`, `rope_theta` included."""
    settings: dict[str, Any] = {"rope_type": rope.kind, "rope_theta": rope.theta}
    if rope.kind != "default":
        settings["factor"] = rope.factor
    if rope.kind == "llama3":
        settings |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_max_positions,
        }
    return settings


def frequencies(rope: Rope, head_size: int) -> np.ndarray:
    """Radians per position, one for each pair of a head's channels, in float32."""
    # float32 throughout, as transformers computes them: at long positions a last bit shows.
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    inverse = np.float32(1.0) / np.power(np.float32(rope.theta), exponents, dtype=np.float32)
    if rope.kind == "linear":
        return inverse / np.float32(rope.factor)
    if rope.kind == "llama3":
        return _llama3(rope, inverse)
    return inverse


def _llama3(rope: Rope, inverse: np.ndarray) -> np.ndarray:
    """Leave fast frequencies, divide slow ones, blend between (Llama 3.1)."""
    wavelengths = 2 * math.pi / inverse
    low, high = rope.low_freq_factor, rope.high_freq_factor
    smooth = (rope.original_max_positions / wavelengths - low) / (high - low)
    blend = np.clip(smooth, 0.0, 1.0)
    return (((1 - blend) / rope.factor + blend) * inverse).astype(np.float32)


def angles(rope: Rope, head_size: int, positions_BT: Int[Array, "B T"]) -> Angles:
    """The angle tables of a batch; shared by every layer with this rope."""
    turned = positions_BT[:, :, None].astype(jnp.float32) * jnp.asarray(frequencies(rope, head_size))[None, None, :]
    cos, sin = jnp.cos(turned), jnp.sin(turned)
    # Stacked, the tables are computed once; alone, XLA would compute each cosine anew wherever it is used.
    return Angles(jnp.stack([cos, cos], axis=2), jnp.stack([-sin, sin], axis=2))


def rotate(x_BTHK: Float[Array, "B T H K"], turn: Angles) -> Float[Array, "B T H K"]:
    """Turn every head by its token's angles."""
    halves = x_BTHK.reshape(*x_BTHK.shape[:-1], 2, -1)
    cos, sin = (table[:, :, None].astype(halves.dtype) for table in turn)
    return (halves * cos + halves[..., ::-1, :] * sin).reshape(x_BTHK.shape)
