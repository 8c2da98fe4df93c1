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
    bootstrap: bool = True,
) -> Steps:
    """Temporal-difference errors of one window.

    Args:
      rewards, terminated, truncated: [time, ...]; both flags belong to the step they end.
      values: [time, ...], V of the observation that the step was taken from.
      next_values: [time, ...], V of the observation that the step led to: the episode's true last
        one where it ended, never the first of the next.
      bootstrap: at a truncation use V of that last observation. Otherwise the sample is
        neutralised (advantage 0), as the authors' code does with `use_proper_time_limits`.
    """
    ended = jnp.maximum(terminated, truncated)
    return Steps(
        errors=rewards + gamma * (1.0 - terminated) * next_values - values,
        values=values,
        continues=1.0 - ended,
        keeps=jnp.ones_like(ended) if bootstrap else 1.0 - truncated,
    )


def gae(*, gae_lambda: float, gamma: float, **window) -> jax.Array:
    """Generalised advantage estimates [time, ...] (Schulman et al. 2016); see `steps`.

    Value targets are `values` plus these.
    """
    return traced(steps(gamma=gamma, **window), None, gamma * gae_lambda, "capped")


def traced(window: Steps, ratio: jax.Array | None, decay, trace: str, **numbers) -> jax.Array:
    """Advantages [time, ...] with traces that other agents' changed policies shorten.

    ratio [time, ...] is the product of the preceding agents' and the agent's own ratios; None,
    like ratios of one, gives GAE. decay is gamma lambda; trace names a row of TRACES.
    """
    if ratio is None:
        return _backward(window, decay * window.continues)
    return TRACES[trace](window, ratio, decay, **numbers)


def _backward(window, reach):
    """A_t = keeps_t (error_t + reach_t A_(t+1)); reach_t covers the way from t to t + 1."""

    def step(following, now):
        error, reach, keeps = now
        advantage = keeps * (error + reach * following)
        return advantage, advantage

    start = jnp.zeros_like(window.errors[0])
    inputs = (window.errors, reach, window.keeps)
    return jax.lax.scan(step, start, inputs, reverse=True, unroll=16)[1]


def _following(ratio):
    """ratio_(t+1); the window's end has no following step, and its reach is never used."""
    return jnp.concatenate([ratio[1:], jnp.ones_like(ratio[:1])])


def _capped(window, ratio, decay, **_):
    """The A2PO paper's preceding-agent off-policy correction: lambda min(1, ratio) a step."""
    reach = decay * jnp.minimum(1.0, _following(ratio))
    return _backward(window, reach * window.continues)


def _squared(window, ratio, decay, *, gae_lambda, **_):
    """The authors' code without `speedup_trace`: lambda enters a second time."""
    reach = decay * gae_lambda * jnp.minimum(1.0, _following(ratio))
    return _backward(window, reach * window.continues)


def _running(window, ratio, decay, **_):
    """The authors' code with `speedup_trace`: the running product is capped, and may recover.

    P_(t,l) = min(1, ratio_l P_(t,l-1)), P_(t,t) = 1: no backward recursion, hence time x time.
    """
    length = ratio.shape[0]
    starts = jnp.arange(length).reshape(-1, *[1] * (ratio.ndim - 1))

    def step(carry, now):
        product, weight, total = carry
        t, ratio, error, reach, keeps = now
        begun, fresh = starts < t, starts == t
        product = jnp.where(fresh, 1.0, jnp.minimum(1.0, ratio * product))
        weight = jnp.where(fresh, keeps, jnp.where(begun, weight * decay * reach * keeps, 0.0))
        return (product, weight, total + weight * product * error), None

    # The way to a step leads over the end of the one before.
    before = jnp.concatenate([jnp.ones_like(ratio[:1]), window.continues[:-1]])
    zero = jnp.zeros_like(ratio)
    inputs = (jnp.arange(length), ratio, window.errors, before, window.keeps)
    return jax.lax.scan(step, (zero + 1.0, zero, zero), inputs)[0][2]


def _none(window, ratio, decay, **_):
    """GAE whatever the others did (HAPPO)."""
    del ratio
    return _backward(window, decay * window.continues)


TRACES = {"capped": _capped, "running": _running, "squared": _squared, "none": _none}


def normalise(advantages: jax.Array, active: jax.Array, total: Callable = lambda x: x) -> jax.Array:
    """Zero mean, unit deviation over all samples of all agents that were active.

    total(x) sums over devices that hold other samples.
    """
    count = jnp.maximum(total(active.sum()), 1.0)
    mean = total((advantages * active).sum()) / count
    variance = total((jnp.square(advantages - mean) * active).sum()) / count
    return (advantages - mean) / (jnp.sqrt(variance) + 1e-5)
