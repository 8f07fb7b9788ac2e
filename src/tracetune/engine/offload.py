"""An optimizer's state in pinned memory of the host: it visits the device for its update and goes back.

Arrays alone move; counters stay. Where a device shares the host's memory, as a CPU does, nothing is saved.
"""

from collections.abc import Callable
from typing import Any

import jax

from tracetune.models.remat import HOST, require_host_memory


def check_offload() -> None:
    """Raises InputError unless the device can use pinned memory of its host."""
    require_host_memory("optimizer.offload", "set it to false")


def rest(opt_state: Any) -> Any:
    """A state with its arrays moved to the host, each laid over the devices as before. Raises InputError."""
    check_offload()
    return _arrays(lambda leaf: jax.device_put(leaf, leaf.sharding.with_memory_kind(HOST)), opt_state)


def resting(opt_state: Any) -> Any:
    """The shapes of what `rest` makes on one device, for programs that are compiled without arrays."""
    check_offload()
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind=HOST)
    return _arrays(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), opt_state)


def visiting(run: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """A step whose state is given and returned with `opt_state` on the host, for one that wants it on the device."""

    def step(state: Any, frozen: Any, stack: Any) -> tuple[Any, Any]:
        after, metrics = run(state._replace(opt_state=_move(state.opt_state, jax.memory.Space.Device)), frozen, stack)
        return after._replace(opt_state=_move(after.opt_state, jax.memory.Space.Host)), metrics

    return step


def _move(opt_state: Any, space: Any) -> Any:
    return _arrays(lambda leaf: jax.device_put(leaf, space), opt_state)


def _arrays(change: Callable[[Any], Any], opt_state: Any) -> Any:
    return jax.tree.map(lambda leaf: change(leaf) if leaf.ndim else leaf, opt_state)
