"""Supervised fine-tuning: negative log-likelihood of the target tokens over an explicit, global count.

Shapes: B sequences, T tokens. Log-probabilities in nats.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def sft_weights(weights_BT: Float[Array, "B T"], num_targets: Float[Array, ""]) -> Float[Array, "B T"]:
    """What each log-probability counts towards the log-likelihood; the loss is linear in them.

    `num_targets` is the sum of weights over *all* micro-batches and devices of the step, so that accumulating
    equals one large batch. A step without targets has loss 0.
    """
    return weights_BT / jnp.maximum(num_targets, 1.0)


def sft_loss(
    logprobs_BT: Float[Array, "B T"], weights_BT: Float[Array, "B T"], num_targets: Float[Array, ""]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Mean negative log-likelihood per target, and the metrics that are sums over this batch."""
    loss = -jnp.sum(logprobs_BT * sft_weights(weights_BT, num_targets))
    return loss, {"targets": jnp.sum(weights_BT)}
