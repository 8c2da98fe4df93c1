"""Advantages and value targets."""

import jax
import jax.numpy as jnp


def gae(
    *,
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: float,
    gae_lambda: float,
    bootstrap: bool = True,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al. 2016) over one window.

    Args:
      rewards, terminated, truncated: [time, ...]; both flags belong to the step they end.
      values: [time, ...], V of the observation that the step was taken from.
      next_values: [time, ...], V of the observation that the step led to: the episode's true last
        one where it ended, never the first of the next.
      bootstrap: at a truncation use V of that last observation. Otherwise the sample is
        neutralised (advantage 0), as the authors' code does with `use_proper_time_limits`.

    Returns:
      [time, ...]; value targets are `values` plus these.
    """
    continues = 1.0 - terminated
    ended = jnp.maximum(terminated, truncated)
    keeps = jnp.ones_like(ended) if bootstrap else 1.0 - truncated

    def backward(following, step):
        reward, value, next_value, continues, ended, keeps = step
        error = reward + gamma * continues * next_value - value
        advantage = keeps * (error + gamma * gae_lambda * (1.0 - ended) * following)
        return advantage, advantage

    steps = (rewards, values, next_values, continues, ended, keeps)
    _, advantages = jax.lax.scan(
        backward, jnp.zeros_like(values[0]), steps, reverse=True, unroll=16
    )
    return advantages


def normalise(advantages: jax.Array, active: jax.Array) -> jax.Array:
    """Zero mean, unit deviation over all samples of all agents that were active."""
    count = jnp.maximum(active.sum(), 1.0)
    mean = (advantages * active).sum() / count
    variance = (jnp.square(advantages - mean) * active).sum() / count
    return (advantages - mean) / (jnp.sqrt(variance) + 1e-5)
