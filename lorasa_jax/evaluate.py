"""Playing whole episodes with the greedy policy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn.rollout import choose
from lorasa_jax.learn.team import Team, forward


class EpisodeResults(NamedTuple):
    """Per episode [episode]: undiscounted return, length in steps, and whether it was won.

    won is None where the environment has no notion of winning.
    """

    returns: jax.Array
    lengths: jax.Array
    won: jax.Array | None


def play(key: jax.Array, team: Team, actor_weights, *, episodes: int) -> EpisodeResults:
    """Plays `episodes` episodes side by side with the mode of every action distribution.

    actor_weights is what the actor's scheme gives for its banks. The key is consumed.
    """
    env = team.env
    reset_key, key = jax.random.split(key)
    state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))
    zeros = jnp.zeros(episodes)
    wins = zeros if "won" in timestep.info else None
    results = EpisodeResults(zeros, zeros.astype(jnp.int32), wins)
    carry = team.actor.network.initial_carry(episodes, env.num_agents)
    never = jnp.zeros((1, episodes), bool)

    def unfinished(loop):
        return ~loop[-1].all()

    def step(loop):
        key, state, timestep, carry, results, done = loop
        key, step_key = jax.random.split(key)
        carry, outputs = forward(
            team.actor.network, actor_weights, carry, timestep.obs[None], never, agent_axis=2
        )
        outputs = jax.tree.map(lambda x: x[0], outputs)
        action = team.distribution.to_env(team.distribution.mode(outputs, timestep.legal))
        after, timestep = jax.vmap(env.step)(jax.random.split(step_key, episodes), state, action)
        playing = ~done
        ended = timestep.terminated | timestep.truncated
        results = EpisodeResults(
            results.returns + jnp.where(playing, timestep.reward, 0.0),
            results.lengths + playing,
            None if wins is None else jnp.where(playing & ended, timestep.info["won"], results.won),
        )
        # A finished episode stays where it ended: its physics may not be stepped on sensibly.
        state = choose(done, state, after)
        return key, state, timestep, carry, results, done | ended

    start = (key, state, timestep, carry, results, jnp.zeros(episodes, bool))
    return jax.lax.while_loop(unfinished, step, start)[4]
