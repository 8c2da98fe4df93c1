"""Advantages and value targets."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Steps(NamedTuple):
    """Arrays [time, ...]: temporal-difference errors, values, and how far traces reach.

    continues is 0 where an episode ended at the step; keeps is 0 where a sample is neutralised.
    """

    errors: jax.Array
    values: jax.Array
    continues: jax.Array
    keeps: jax.Array


def steps(
    *,
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: float,
    truncation: str = "bootstrap",
) -> Steps:
    """Temporal-difference errors of one trajectory.

    Args:
      rewards, terminated, truncated: [time, ...]; both flags belong to the step they end.
      values: [time, ...], V of the observation that the step was taken from.
      next_values: [time, ...], V of the observation that the step led to: the episode's true last
        one where it ended, never the first of the next.
      truncation: `bootstrap` uses V of that last observation; `authors` neutralises the sample
        (advantage 0), as the authors' code does with `use_proper_time_limits` (MuJoCo);
        `terminal` takes it for a termination, as their code does without (SMAC).
    """
    ended = jnp.maximum(terminated, truncated)
    over = ended if truncation == "terminal" else terminated
    return Steps(
        errors=rewards + gamma * (1.0 - over) * next_values - values,
        values=values,
        continues=1.0 - ended,
        keeps=1.0 - truncated if truncation == "authors" else jnp.ones_like(ended),
    )


def gae(*, gamma: float, gae_lambda: float, **trajectory) -> jax.Array:
    """Generalised advantage estimates [time, ...] (Schulman et al. 2016); see `steps`.

    Value targets are `values` plus these.
    """
    td_steps = steps(gamma=gamma, **trajectory)
    return backward(td_steps, gamma * gae_lambda * td_steps.continues)


def backward(trajectory: Steps, reach: jax.Array) -> jax.Array:
    """A_t = keeps_t (error_t + reach_t A_(t+1)); reach_t covers the way from t to t + 1."""

    def step(following, current):
        error, reach, keeps = current
        advantage = keeps * (error + reach * following)
        return advantage, advantage

    start = jnp.zeros_like(trajectory.errors[0])
    inputs = (trajectory.errors, reach, trajectory.keeps)
    return jax.lax.scan(step, start, inputs, reverse=True, unroll=8)[1]


def normalise(advantages: jax.Array, active: jax.Array, total: Callable = lambda x: x) -> jax.Array:
    """Zero mean, unit deviation over all samples of all agents that were active.

    total(x) sums over devices that hold other samples.
    """
    weight = active.astype(advantages.dtype)
    count = jnp.maximum(total(active.sum()).astype(weight.dtype), 1.0)
    mean = total((advantages * weight).sum()) / count
    variance = total((jnp.square(advantages - mean) * weight).sum()) / count
    return (advantages - mean) / (jnp.sqrt(variance) + 1e-5)
