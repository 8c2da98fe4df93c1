"""A fixed set of observations to compare policies on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn import rollout
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.networks import parameters


class Observations(NamedTuple):
    """Sequences of what agents saw: obs [time, env, agent, feature], first [time, env].

    first marks steps that begin an episode; legal [time, env, agent, action] and
    active [time, env, agent] are the time steps' own.
    """

    obs: jax.Array
    first: jax.Array
    legal: jax.Array
    active: jax.Array


def collect(
    key: jax.Array, team: Team, actor_weights, *, length: int, num_envs: int
) -> Observations:
    """What agents see while they play a policy, with sampled actions, from fresh episodes on.

    length steps in each of num_envs environments. actor_weights is what the actor's scheme gives
    for its banks. The key is consumed.
    """
    start_key, play_key = jax.random.split(key)
    runner = rollout.start(start_key, team, num_envs)
    _, trajectory, _ = rollout.unroll(
        play_key, team, actor_weights, _zeros(team.critic), runner, length=length, chunk=length
    )
    steps = jax.tree.map(rollout.merge_time, trajectory.transitions)
    return Observations(steps.obs, steps.first, steps.legal, steps.active)


def _zeros(role: Role):
    """Weights of zeros: a rollout evaluates a critic too, whose values are not used here."""
    shapes = jax.eval_shape(
        lambda key: parameters(role.network, key, role.features), jax.random.key(0)
    )
    tree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return tree, jax.tree.map(lambda _: None, shapes)


def pooled(*sets: Observations) -> Observations:
    """Several sets of equal length as one, such as the visits of every policy to be compared."""
    return Observations(*(jnp.concatenate(parts, axis=1) for parts in zip(*sets, strict=True)))
