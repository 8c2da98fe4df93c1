"""Collecting one trajectory of experience from many environments in one compiled scan."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.envs.normalise import Observed, shown
from lorasa_jax.envs.types import TimeStep
from lorasa_jax.learn import truncation
from lorasa_jax.learn.resets import reset_ended
from lorasa_jax.learn.team import Team, critic_values, forward, types_in


class Runner(NamedTuple):
    """What one trajectory hands to the next: environments, their last time step, recurrent states.

    first [env]: the time step begins an episode. episode_return [env]: sum of rewards so far.
    """

    env_state: Any
    timestep: TimeStep
    actor_carry: jax.Array
    critic_carry: jax.Array
    first: jax.Array
    episode_return: jax.Array


class Transition(NamedTuple):
    """One step of every environment; arrays [env, agent, ...], flags and reward [env].

    obs and state are the environment's own, before any running statistics. types [env, agent]:
    whose weights agents used, where that comes with the episode.
    """

    obs: jax.Array
    state: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    active: jax.Array
    legal: jax.Array
    first: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    slot: jax.Array
    types: jax.Array | None = None


class Trajectory(NamedTuple):
    """Experience [chunk, step within it, env, ...], and what surrounds it.

    actor_carry, critic_carry [chunk, env, agent, hidden]: recurrent states at each chunk's start.
    last_value [env, agent]: V after the last step. end_values [slot, env, agent]: V of the last
    observations of truncated episodes, by the transitions' `slot`. All values are normalised.
    """

    transitions: Transition
    actor_carry: jax.Array
    critic_carry: jax.Array
    last_value: jax.Array
    end_values: jax.Array


class Episodes(NamedTuple):
    """Sums over the episodes that ended in a trajectory."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.count
    returns: jax.Array
    wins: jax.Array


class _Draws(NamedTuple):
    """Randomness of steps: action noise [..., env, agent, ...], step and reset keys [..., env]."""

    action: jax.Array
    step: jax.Array
    reset: jax.Array


def start(key: jax.Array, team: Team, num_envs: int) -> Runner:
    """Resets `num_envs` environments."""
    env_state, timestep = jax.vmap(team.env.reset)(jax.random.split(key, num_envs))
    agents = (num_envs, team.env.num_agents)
    return Runner(
        env_state,
        timestep,
        team.actor.network.initial_carry(*agents),
        team.critic.network.initial_carry(*agents),
        jnp.ones(num_envs, bool),
        jnp.zeros(num_envs),
    )


def collect(key: jax.Array, team: Team, state, hp) -> tuple[Runner, Trajectory, Episodes]:
    """`unroll` with the weights of a train state (ppo.TrainState), from where its runner stands.

    hp (ppo.Hyperparameters) gives the length and the chunks. The key is consumed.
    """
    return unroll(
        key,
        team,
        team.actor.scheme.weights(state.actor.banks),
        team.critic.scheme.weights(state.critic.banks),
        state.runner,
        state.observed,
        length=hp.rollout_length,
        chunk=hp.chunk_length,
    )


def unroll(
    key: jax.Array,
    team: Team,
    actor_weights,
    critic_weights,
    runner: Runner,
    statistics: Observed | None = None,
    *,
    length: int,
    chunk: int,
) -> tuple[Runner, Trajectory, Episodes]:
    """Acts for `length` steps, storing recurrent states every `chunk` steps. The key is consumed.

    statistics: those by which networks see observations and states normalised, if any.
    Environments are reset as they end; the critic's view of a truncated episode's last observation
    is kept until the end, when all such values are computed at once.
    """

    def step(carry, draws):
        runner, ends, episodes = carry
        runner, ends, transition, ended = _step(
            draws, team, actor_weights, critic_weights, runner, ends, statistics
        )
        return (runner, ends, jax.tree.map(jnp.add, episodes, ended)), transition

    def run_chunk(carry, draws):
        runner = carry[0]
        carry, transitions = jax.lax.scan(step, carry, draws)
        return carry, (transitions, runner.actor_carry, runner.critic_carry)

    slots = truncation.slots_of(team.env, length)
    no_ends = truncation.none(runner.timestep.state, runner.critic_carry, slots)
    no_episodes = Episodes(*[jnp.zeros(())] * 3)
    carry, (transitions, actor_carry, critic_carry) = jax.lax.scan(
        run_chunk,
        (runner, no_ends, no_episodes),
        _draw(key, team, length // chunk, chunk, runner.first.shape[0]),
    )
    runner, ends, episodes = carry
    of_state = statistics and statistics.state
    last_state = shown(of_state, runner.timestep.state)
    _, last_value = critic_values(
        team, critic_weights, runner.critic_carry, last_state, runner.first
    )
    ends = ends._replace(state=shown(of_state, ends.state))
    end_values = truncation.values(team, critic_weights, ends)
    trajectory = Trajectory(transitions, actor_carry, critic_carry, last_value, end_values)
    return runner, trajectory, episodes


def _draw(key, team, *shape) -> _Draws:
    """All randomness of a trajectory at once: a generator inside the loop would cost more there."""
    act_key, step_key, reset_key = jax.random.split(key, 3)
    return _Draws(
        team.distribution.noise(act_key, *shape, team.env.num_agents),
        jax.random.split(step_key, shape),
        jax.random.split(reset_key, shape),
    )


def _step(draws, team, actor_weights, critic_weights, runner, ends, statistics):
    """One step of all environments: act, step, remember truncated ends, reset."""
    env, timestep = team.env, runner.timestep
    obs = shown(statistics and statistics.obs, timestep.obs)
    state = shown(statistics and statistics.state, timestep.state)
    types = types_in(team, runner.env_state)
    actor_carry, outputs = forward(
        team.actor.network, actor_weights, runner.actor_carry, obs[None], runner.first[None],
        agent_axis=2, types=None if types is None else types[None],
    )  # fmt: skip
    outputs = jax.tree.map(lambda x: x[0], outputs)
    critic_carry, value = critic_values(
        team, critic_weights, runner.critic_carry, state, runner.first
    )
    action = team.distribution.sample(outputs, timestep.legal, draws.action)
    log_prob = team.distribution.log_prob(outputs, timestep.legal, action)
    env_state, after = jax.vmap(env.step)(
        draws.step, runner.env_state, team.distribution.to_env(action)
    )
    ended = after.terminated | after.truncated
    cut = after.truncated & ~after.terminated
    transition = Transition(
        obs=timestep.obs, state=timestep.state, action=action, log_prob=log_prob, value=value,
        active=timestep.active, legal=timestep.legal, first=runner.first, reward=after.reward,
        terminated=after.terminated, truncated=cut, slot=ends.used,
        types=types,
    )  # fmt: skip
    ends = truncation.remember(ends, cut, after.state, critic_carry)
    new_state, new = reset_ended(env, ended, draws.reset, (env_state, after))
    episode_return = runner.episode_return + after.reward
    won = after.info.get("won", jnp.zeros_like(ended)).astype(float)
    over = ended.astype(float)
    sums = (x.sum() for x in (over, over * episode_return, over * won))
    runner = Runner(
        new_state,
        new,
        actor_carry,
        critic_carry,
        ended,
        jnp.where(ended, 0.0, episode_return),
    )
    return runner, ends, transition, Episodes(*sums)


def next_values(trajectory: Trajectory, values: jax.Array) -> jax.Array:
    """[time, env, agent]: V of what each step led to, truncated episodes' true last ones included.

    values [time, env, agent] are the transitions' own; same units as `trajectory.last_value`.
    """
    steps = jax.tree.map(merge_time, trajectory.transitions)
    following = jnp.concatenate([values[1:], trajectory.last_value[None]])
    slot = jnp.minimum(steps.slot, trajectory.end_values.shape[0] - 1)
    at_end = trajectory.end_values[slot, jnp.arange(slot.shape[1])]
    return jnp.where(steps.truncated[..., None], at_end, following)


def merge_time(x: jax.Array) -> jax.Array:
    """[chunk, step, ...] -> [time, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
