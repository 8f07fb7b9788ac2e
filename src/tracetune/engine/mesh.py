"""A step on many devices: the mesh, what lies where on it, and a loss that each of them computes for its own rows.

Arrays are divided by name (`models.shard`); the compiler finds the rest, so one step serves any mesh. Rows of zeros
fill a batch up to whole shares: they hold no target and cost their devices only time.
Shapes: A micro-batches, B rows, T positions, D model, V vocab.
"""

import math
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tracetune.config.schema import MeshSettings
from tracetune.core.errors import InputError
from tracetune.engine.step import Facts, LossOf, Stack
from tracetune.models.shard import BATCH_AXES, read_onto
from tracetune.objectives.grpo import Counts

# A pass holds rows of every device, so it is all of a micro-batch.
WHOLE_BATCH = sys.maxsize


def make_mesh(settings: MeshSettings) -> Mesh | None:
    """The grid of all devices that `settings` ask for; None for one device, which needs none.

    Raises InputError for an unknown axis, and unless the counts make up the devices of all processes.
    """
    axes = tuple("dp" if axis == "data" else axis for axis in settings.axes)
    told = f"model.mesh_shape [{list(settings.shape)}, {list(settings.axes)}]"
    if strangers := sorted(set(axes) - {*BATCH_AXES, "tp"}):
        raise InputError(f"{told}: has no axis {strangers[0]!r}; the axes are dp (or data), fsdp and tp")
    asked, found = math.prod(settings.shape), jax.device_count()
    if asked == 1 and jax.process_count() == 1:
        return None
    if asked != found:
        raise InputError(
            f"{told}: lays out {asked} devices, but there are {found} in {jax.process_count()} process(es); "
            f"choose counts whose product is {found}"
        )
    return jax.make_mesh(settings.shape, axes, axis_types=(AxisType.Auto,) * len(axes))


def num_shares(mesh: Mesh) -> int:
    """Into how many shares the rows of a batch are divided."""
    return math.prod(mesh.shape[axis] for axis in batch_axes(mesh))


def batch_axes(mesh: Mesh) -> tuple[str, ...]:
    """The axes over which the rows of a batch are divided."""
    return tuple(axis for axis in BATCH_AXES if axis in mesh.shape)


def place_rows(rows: Any, mesh: Mesh | None, *, axis: int) -> Any:
    """Arrays of the host, alike along `axis`, with their rows divided over the mesh; None leaves them as they are.

    Every process makes all rows of a batch from the same data and seed, and brings only those of its own devices.
    """
    if mesh is None:
        return rows
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * axis, batch_axes(mesh)))

    def place(stream: Any) -> jax.Array:
        whole = fill_rows(np.asarray(stream), num_shares(mesh), axis=axis)
        return read_onto(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, rows)


def fill_rows(array: np.ndarray, multiple: int, *, axis: int) -> np.ndarray:
    """Rows of zeros behind the others, up to a multiple."""
    filler = [(0, 0)] * array.ndim
    filler[axis] = (0, -array.shape[axis] % multiple)
    return np.pad(array, filler) if filler[axis][1] else array


def spread(loss_of: LossOf, mesh: Mesh | None) -> LossOf:
    """The same loss, of which each share of the devices computes the part of its own rows.

    Left to itself the compiler would put all tokens in a row, those of other devices too, and compute the head of
    every one everywhere.
    """
    axes = () if mesh is None else batch_axes(mesh)
    if mesh is None or not axes:
        return loss_of

    def own(hidden_BTD: jax.Array, head_VD: jax.Array, micro: Stack, counts: Counts) -> tuple[jax.Array, Facts]:
        loss, facts = loss_of(hidden_BTD, head_VD, micro, counts)
        sums, maxima = jax.lax.psum(facts.sums, axes), jax.lax.pmax(facts.maxima, axes)
        return jax.lax.psum(loss, axes), Facts(sums, maxima)

    rows, whole = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        own,
        mesh=mesh,
        in_specs=(rows, whole, rows, whole),
        out_specs=whole,
        axis_names=frozenset(axes),
        check_vma=False,
    )
