"""Where a time limit cuts episodes: what the critic saw there is kept, and valued all at once."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn.team import Team, critic_values


class Ends(NamedTuple):
    """Critic inputs at truncated episodes' last observations [slot, env, ...]; `used` [env] slots
    are taken.
    """

    state: jax.Array
    carry: jax.Array
    used: jax.Array


def none(state: Any, carry: jax.Array, slots: int) -> Ends:
    """As many free slots for critic inputs like these of one time step [env, ...]."""
    return Ends(
        jnp.zeros((slots, *state.shape), state.dtype),
        jnp.zeros((slots, *carry.shape)),
        jnp.zeros(state.shape[0], jnp.int32),
    )


def slots_of(env: Any, length: int) -> int:
    """How many truncations one environment may see in `length` steps.

    One every `max_steps` where it never truncates earlier (`truncates_early`), else one a step.
    """
    if getattr(env, "truncates_early", True):
        return length
    return math.ceil(length / env.max_steps)


def remember(ends: Ends, cut: jax.Array, state: jax.Array, carry: jax.Array) -> Ends:
    """Takes a slot for every environment whose episode is cut [env] at this time step."""
    slots, num_envs = ends.state.shape[:2]
    # Where nothing was cut the slot is out of range, and nothing is written.
    indices = jnp.where(cut, ends.used, slots), jnp.arange(num_envs)
    return Ends(
        ends.state.at[indices].set(state, mode="drop"),
        ends.carry.at[indices].set(carry, mode="drop"),
        ends.used + cut.astype(ends.used.dtype),
    )


def values(team: Team, critic_weights: tuple[Any, Any], ends: Ends) -> jax.Array:
    """V [slot, env, agent] in normalised space of all slots, of which those taken mean something.

    The states are those that the critic sees.
    """
    never = jnp.zeros(ends.used.shape, bool)
    _, end_values = jax.vmap(
        lambda carry, state: critic_values(team, critic_weights, carry, state, never)
    )(ends.carry, ends.state)
    return end_values
