"""What the backward pass computes again instead of keeping: the policies of `training.gradient_checkpointing`.

Each gives the same loss and gradient, to rounding; they differ in memory and time alone. `dots` keeps products with
weights, `offload` keeps them in memory of the host; attention and what is elementwise is computed again.
"""

from collections.abc import Callable
from typing import Any

import jax

from tracetune.config.schema import Remat
from tracetune.core.errors import InputError

HOST = "pinned_host"
# What products with weights are called; a policy does not see into our own gradients of them.
PRODUCT = "product"


def checkpointed(layer: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """`layer`, whose first argument is static, under a policy; False keeps all that its gradient needs.

    Raises InputError for `offload` where the device has no pinned host memory.
    """
    if remat is False:
        return layer
    policies = jax.checkpoint_policies
    if remat is True:
        policy = policies.nothing_saveable
    elif remat == "dots":
        policy = policies.save_only_these_names(PRODUCT)
    else:
        require_host_memory("training.gradient_checkpointing: offload", "use true or dots")
        policy = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[PRODUCT],
            offload_src="device",
            offload_dst=HOST,
        )
    return jax.checkpoint(layer, static_argnums=0, policy=policy)


def has_host_memory() -> bool:
    """Whether the device can use pinned memory of its host."""
    return HOST in _memories()


def require_host_memory(setting: str, advice: str) -> None:
    """Raises InputError naming the setting unless the device can use pinned memory of its host."""
    if not has_host_memory():
        device, has = jax.devices()[0], ", ".join(_memories()) or "none"
        raise InputError(
            f"{setting}: needs pinned host memory, which {device.device_kind} ({device.platform}) does not offer "
            f"(it has {has}); {advice}"
        )


def _memories() -> list[str]:
    return sorted(memory.kind for memory in jax.devices()[0].addressable_memories())
