"""Advantages with traces that other agents' changed policies shorten: A2PO's, its code's, none."""

import jax
import jax.numpy as jnp

from lorasa_jax.learn.returns import Steps, backward


def off_policy(
    trajectory: Steps, ratio: jax.Array, *, gamma: float, gae_lambda: float, trace: str
) -> jax.Array:
    """Advantages [time, ...] with traces that other agents' changed policies shorten.

    ratio [time, ...] is the product of the preceding agents' and the agent's own ratios; ratios of
    one give GAE (but for `squared`). trace names a row of TRACES.
    """
    return TRACES[trace](trajectory, ratio, gamma, gae_lambda)


def _following(ratio):
    """ratio_(t+1); the trajectory's end has no following step, and its reach is never used."""
    return jnp.concatenate([ratio[1:], jnp.ones_like(ratio[:1])])


def _capped(trajectory, ratio, gamma, gae_lambda):
    """The A2PO paper's preceding-agent off-policy correction: lambda min(1, ratio) a step."""
    reach = gamma * gae_lambda * jnp.minimum(1.0, _following(ratio))
    return backward(trajectory, reach * trajectory.continues)


def _squared(trajectory, ratio, gamma, gae_lambda):
    """The authors' code without `speedup_trace`: lambda enters a second time."""
    reach = gamma * gae_lambda**2 * jnp.minimum(1.0, _following(ratio))
    return backward(trajectory, reach * trajectory.continues)


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
    return backward(trajectory, gamma * gae_lambda * trajectory.continues)


TRACES = {"capped": _capped, "running": _running, "squared": _squared, "none": _none}
