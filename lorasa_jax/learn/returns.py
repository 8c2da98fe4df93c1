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
    return _backward(td_steps, gamma * gae_lambda * td_steps.continues)


def off_policy(
    trajectory: Steps, ratio: jax.Array, *, gamma: float, gae_lambda: float, trace: str
) -> jax.Array:
    """Advantages [time, ...] with traces that other agents' changed policies shorten.

    ratio [time, ...] is the product of the preceding agents' and the agent's own ratios; ratios of
    one give GAE (but for `squared`). trace names a row of TRACES.
    """
    return TRACES[trace](trajectory, ratio, gamma, gae_lambda)


def _backward(trajectory, reach):
    """A_t = keeps_t (error_t + reach_t A_(t+1)); reach_t covers the way from t to t + 1."""

    def step(following, current):
        error, reach, keeps = current
        advantage = keeps * (error + reach * following)
        return advantage, advantage

    start = jnp.zeros_like(trajectory.errors[0])
    inputs = (trajectory.errors, reach, trajectory.keeps)
    return jax.lax.scan(step, start, inputs, reverse=True, unroll=8)[1]


def _following(ratio):
    """ratio_(t+1); the trajectory's end has no following step, and its reach is never used."""
    return jnp.concatenate([ratio[1:], jnp.ones_like(ratio[:1])])


def _capped(trajectory, ratio, gamma, gae_lambda):
    """The A2PO paper's preceding-agent off-policy correction: lambda min(1, ratio) a step."""
    reach = gamma * gae_lambda * jnp.minimum(1.0, _following(ratio))
    return _backward(trajectory, reach * trajectory.continues)


def _squared(trajectory, ratio, gamma, gae_lambda):
    """The authors' code without `speedup_trace`: lambda enters a second time."""
    reach = gamma * gae_lambda**2 * jnp.minimum(1.0, _following(ratio))
    return _backward(trajectory, reach * trajectory.continues)


def _running(trajectory, ratio, gamma, gae_lambda):
    """The authors' code with `speedup_trace`: the running product is capped, and may recover.

    P_(t,l) = min(1, ratio_l P_(t,l-1)), P_(t,t) = 1: no backward recursion, hence time x time.
    """
    length, decay = ratio.shape[0], gamma * gae_lambda
    starts = jnp.arange(length).reshape(-1, *[1] * (ratio.ndim - 1))

    def step(carry, current):
        product, weight, total = carry
        t, (ratio, error, reach, keeps) = current[0], (x[None] for x in current[1:])
        begun, fresh = starts < t, starts == t
        product = jnp.where(fresh, 1.0, jnp.minimum(1.0, ratio * product))
        weight = jnp.where(fresh, keeps, jnp.where(begun, weight * decay * reach * keeps, 0.0))
        return (product, weight, total + weight * product * error), None

    # To reach a step, a trace passes the end of the step before it.
    before = jnp.concatenate([jnp.ones_like(ratio[:1]), trajectory.continues[:-1]])
    zero = jnp.zeros_like(ratio)
    inputs = (jnp.arange(length), ratio, trajectory.errors, before, trajectory.keeps)
    return jax.lax.scan(step, (zero + 1.0, zero, zero), inputs)[0][2]


def _none(trajectory, ratio, gamma, gae_lambda):
    """GAE whatever the others did (HAPPO)."""
    del ratio
    return _backward(trajectory, gamma * gae_lambda * trajectory.continues)


TRACES = {"capped": _capped, "running": _running, "squared": _squared, "none": _none}


def normalise(advantages: jax.Array, active: jax.Array, total: Callable = lambda x: x) -> jax.Array:
    """Zero mean, unit deviation over all samples of all agents that were active.

    total(x) sums over devices that hold other samples.
    """
    weight = active.astype(advantages.dtype)
    count = jnp.maximum(total(active.sum()).astype(weight.dtype), 1.0)
    mean = total((advantages * weight).sum()) / count
    variance = total((jnp.square(advantages - mean) * weight).sum()) / count
    return (advantages - mean) / (jnp.sqrt(variance) + 1e-5)
