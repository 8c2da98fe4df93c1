"""PPO's losses per sample; callers sum, mask and average them."""

import jax
import jax.numpy as jnp
import optax

HUBER_DELTA = 10.0


def policy_loss(
    ratio: jax.Array, advantage: jax.Array, clip: float, others: jax.Array | None = None
) -> jax.Array:
    """Minus the clipped surrogate, each dimension clipped by itself, summed over dimensions.

    ratio [..., dimensions], advantage [...]. One dimension gives PPO's usual loss; the authors'
    code keeps a ratio per action dimension on continuous actions. others [...] is A2PO's factor
    of the agents updated before, which multiplies the ratio before it is clipped.
    """
    advantage = advantage[..., None]
    if others is not None:
        ratio = ratio * others[..., None]
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -jnp.minimum(ratio * advantage, clipped * advantage).sum(-1)


def value_loss(value: jax.Array, old: jax.Array, target: jax.Array, clip: float) -> jax.Array:
    """Huber loss (delta 10) of the value or of its clipped move from `old`, the larger of both.

    All in normalised value space.
    """
    clipped = old + jnp.clip(value - old, -clip, clip)
    return jnp.maximum(
        optax.losses.huber_loss(value, target, delta=HUBER_DELTA),
        optax.losses.huber_loss(clipped, target, delta=HUBER_DELTA),
    )
