"""Running statistics of what agents and critics see, trajectory after trajectory."""

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from lorasa_jax.envs.normalise import Moments, Observed, combined, normalised
from lorasa_jax.learn import devices
from lorasa_jax.learn.rollout import Trajectory, Transition, merge_time
from lorasa_jax.learn.team import Team


def update(statistics: Observed | None, trajectory: Trajectory, team: Team, hp) -> Observed | None:
    """The statistics with a trajectory's observations of active agents, and states of all, added.

    They belong to the network that reads them: where that is frozen, so are they.
    """
    if statistics is None or team.actor.scheme.adapts:
        return statistics
    steps = jax.tree.map(merge_time, trajectory.transitions)
    obs = moments(steps.obs, steps.active, hp)
    state = moments(steps.state, jnp.ones_like(steps.active), hp)
    return Observed(combined(statistics.obs, obs), combined(statistics.state, state))


def moments(x: jax.Array, counted: jax.Array, hp) -> Moments:
    """Count, mean and variance of the vectors x [..., features] that are counted [...]."""
    weight = counted.astype(x.dtype)[..., None]
    over = tuple(range(x.ndim - 1))
    count = devices.total(weight.sum(), hp)
    mean = devices.total(jnp.sum(x * weight, over), hp) / jnp.maximum(count, 1.0)
    apart = x - broadcast_to_rank(mean, x.ndim)
    squares = devices.total(jnp.sum(jnp.square(apart) * weight, over), hp)
    return Moments(count, mean, squares / jnp.maximum(count, 1.0))


def shown(statistics: Observed | None, steps: Transition) -> Transition:
    """Transitions as the networks saw them; they are kept as the environment showed them."""
    if statistics is None:
        return steps
    return steps._replace(
        obs=normalised(statistics.obs, steps.obs), state=normalised(statistics.state, steps.state)
    )
