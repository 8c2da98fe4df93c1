"""Playing whole episodes with a fixed policy: their results, or one of them step by step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn.resets import choose
from lorasa_jax.learn.team import Team, forward, types_in


class EpisodeResults(NamedTuple):
    """Per episode [episode]: undiscounted return, length in steps, and whether it was won (0 or 1).

    won is None where the environment has no notion of winning.
    """

    returns: jax.Array
    lengths: jax.Array
    won: jax.Array | None


class Recording(NamedTuple):
    """One episode: environment states [time + 1, ...], the first after its reset; rewards [time].

    Entries after `length` steps are of no meaning.
    """

    states: Any
    rewards: jax.Array
    length: jax.Array


def play(
    key: jax.Array, team: Team, actor_weights, *, episodes: int, sampled: bool = False
) -> EpisodeResults:
    """Plays `episodes` episodes side by side, with the mode of every action distribution.

    An episode that the environment has not ended after `max_steps` ends there.
    actor_weights is what the actor's scheme gives for its banks; sampled draws actions instead.
    The key is consumed.
    """
    env = team.env
    reset_key, key = jax.random.split(key)
    state, timestep = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))
    zeros = jnp.zeros(episodes)
    wins = zeros if "won" in timestep.info else None
    results = EpisodeResults(zeros, zeros.astype(jnp.int32), wins)
    carry = team.actor.network.initial_carry(episodes, env.num_agents)

    def unfinished(loop):
        return ~loop[-1].all()

    def step(loop):
        key, state, timestep, carry, results, done = loop
        key, step_key, act_key = jax.random.split(key, 3)
        carry, action = _act(act_key, team, actor_weights, carry, state, timestep, sampled)
        after, timestep = jax.vmap(env.step)(jax.random.split(step_key, episodes), state, action)
        playing = ~done
        lengths = results.lengths + playing.astype(jnp.int32)
        ended = timestep.terminated | timestep.truncated | (lengths >= env.max_steps)
        results = EpisodeResults(
            results.returns + jnp.where(playing, timestep.reward, 0.0),
            lengths,
            None if wins is None else _won(playing & ended, timestep, results.won),
        )
        # A finished episode stays where it ended: its physics may not be stepped on sensibly.
        state = choose(done, state, after)
        return key, state, timestep, carry, results, done | ended

    start = (key, state, timestep, carry, results, jnp.zeros(episodes, bool))
    return jax.lax.while_loop(unfinished, step, start)[4]


def _won(ended, timestep, before):
    """1.0 for episodes that have just `ended` and are won, `before` for those that go on."""
    return jnp.where(ended, timestep.info["won"].astype(float), before)


def record(key: jax.Array, team: Team, actor_weights, *, sampled: bool = False) -> Recording:
    """Plays one episode, of `max_steps` at most, and keeps every state. The key is consumed."""
    env = team.env
    reset_key, key = jax.random.split(key)
    first, timestep = jax.vmap(env.reset)(reset_key[None])
    carry = team.actor.network.initial_carry(1, env.num_agents)

    def step(loop, key):
        state, timestep, carry, length, done = loop
        act_key, step_key = jax.random.split(key)
        carry, action = _act(act_key, team, actor_weights, carry, state, timestep, sampled)
        after, timestep = jax.vmap(env.step)(step_key[None], state, action)
        after = choose(done[None], state, after)
        length += (~done).astype(jnp.int32)
        done |= timestep.terminated[0] | timestep.truncated[0]
        return (after, timestep, carry, length, done), (after, timestep.reward)

    loop = (first, timestep, carry, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    (*_, length, _), (states, rewards) = jax.lax.scan(
        step, loop, jax.random.split(key, env.max_steps)
    )
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b])[:, 0], first, states)
    return Recording(states, rewards[:, 0], length)


def _act(key, team, actor_weights, carry, state, timestep, sampled):
    """Actions for the environment [env, agent, ...], and the next recurrent state."""
    never = jnp.zeros((1, timestep.reward.shape[0]), bool)
    types = types_in(team, state)
    carry, outputs = forward(
        team.actor.network, actor_weights, carry, timestep.obs[None], never, agent_axis=2,
        types=None if types is None else types[None],
    )  # fmt: skip
    outputs = jax.tree.map(lambda x: x[0], outputs)
    if sampled:
        noise = team.distribution.noise(key, *timestep.legal.shape[:2])
        action = team.distribution.sample(outputs, timestep.legal, noise)
    else:
        action = team.distribution.mode(outputs, timestep.legal)
    return carry, team.distribution.to_env(action)
