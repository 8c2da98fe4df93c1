"""Running mean and variance of value targets, one per agent (MAPPO's ValueNorm)."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import broadcast_to_rank

BETA = 0.99999


class ValueNorm(NamedTuple):
    """Exponential averages of targets and squared targets, and their debiasing term; [agent]."""

    mean: jnp.ndarray
    square: jnp.ndarray
    debias: jnp.ndarray


def init(num_agents: int) -> ValueNorm:
    return ValueNorm(*[jnp.zeros(num_agents)] * 3)


def moments(norm: ValueNorm) -> tuple[jnp.ndarray, jnp.ndarray]:
    """Debiased mean and standard deviation [agent]; the variance is at least 0.01."""
    debias = jnp.maximum(norm.debias, 1e-5)
    mean = norm.mean / debias
    variance = jnp.maximum(norm.square / debias - jnp.square(mean), 1e-2)
    return mean, jnp.sqrt(variance)


def update(norm: ValueNorm, mean: jnp.ndarray, square: jnp.ndarray) -> ValueNorm:
    """One step of the averages towards a batch's mean and mean square [agent]."""
    batch = ValueNorm(mean, square, jnp.ones_like(mean))
    return ValueNorm(*(BETA * old + (1 - BETA) * new for old, new in zip(norm, batch, strict=True)))


def normalise(norm: ValueNorm, values: jnp.ndarray) -> jnp.ndarray:
    """Values [..., agent] in normalised space."""
    mean, std = (broadcast_to_rank(x, values.ndim) for x in moments(norm))
    return (values - mean) / std


def denormalise(norm: ValueNorm, values: jnp.ndarray) -> jnp.ndarray:
    """Normalised values [..., agent] in units of return."""
    mean, std = (broadcast_to_rank(x, values.ndim) for x in moments(norm))
    return values * std + mean
