from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs import make
from lorasa_jax.learn import resets, rollout, truncation
from lorasa_jax.learn.team import forward
from lorasa_jax.sharing import nps, ps

ENVS, LENGTH, CHUNK, LIMIT = 4, 20, 5, 3


@pytest.fixture(scope="module")
def played(counter, make_team, make_state):
    """Two consecutive trajectories; `steps` holds their transitions end to end, in NumPy."""
    team = make_team(counter(max_steps=LIMIT), nps(2), ps(2))
    state = make_state(team, ENVS)
    weights = [
        role.scheme.weights(learner.banks)
        for role, learner in ((team.actor, state.actor), (team.critic, state.critic))
    ]
    collect = jax.jit(
        lambda key, runner: rollout.unroll(key, team, *weights, runner, length=LENGTH, chunk=CHUNK)
    )
    runners, trajectories, episodes = [state.runner], [], []
    for key in jax.random.split(jax.random.key(0)):
        runner, trajectory, ended = collect(key, runners[-1])
        runners.append(runner)
        trajectories.append(trajectory)
        episodes.append(ended)
    merged = [jax.tree.map(rollout.merge_time, one.transitions) for one in trajectories]
    steps = jax.tree.map(lambda *x: np.concatenate(x), *merged)
    return SimpleNamespace(
        team=team, weights=weights, runners=runners, trajectories=trajectories, episodes=episodes,
        steps=steps,
    )  # fmt: skip


@pytest.fixture(scope="module")
def episodes(played):
    """[(env, its time steps)] of all episodes, by the environment's own step count."""
    count = played.steps.obs[:, :, 0, 0]
    found = []
    for env in range(ENVS):
        starts = [*np.flatnonzero(count[:, env] == 0), 2 * LENGTH]
        found += [(env, range(*pair)) for pair in pairwise(starts)]
    return found


@pytest.fixture(scope="module")
def replayed(played, episodes):
    """Every episode by itself from a zero carry: outputs [step, episode, agent, ...].

    The observation after an episode's last step comes last; what is beyond it is padding.
    """
    steps, shape = played.steps, (LIMIT + 1, len(episodes), 2)
    obs, state = np.zeros((*shape, 5), np.float32), np.zeros((*shape, 6), np.float32)
    for e, (env, times) in enumerate(episodes):
        for s, t in enumerate(times):
            obs[s, e], state[s, e] = steps.obs[t, env], steps.state[t, env]
        total = steps.obs[t, env, 0, 1] + steps.action[t, env].sum()
        obs[s + 1, e], state[s + 1, e] = played.team.env.view(
            jnp.float32(len(times)), jnp.float32(total)
        )
    never = jnp.zeros(shape[:2], bool)
    carry = jnp.zeros((len(episodes), 2, 8))
    actor, critic = (
        jax.jit(
            lambda x, network=role.network, weights=weights: forward(
                network, weights, carry, x, never, agent_axis=2
            )[1]
        )(x)
        for role, weights, x in zip(
            (played.team.actor, played.team.critic), played.weights, (obs, state), strict=True
        )
    )
    return jax.tree.map(np.asarray, actor), np.asarray(critic["value"][..., 0])


def next_values(played, trajectory):
    steps = jax.tree.map(rollout.merge_time, trajectory.transitions)
    return steps, np.asarray(rollout.next_values(trajectory, steps.value))


@pytest.mark.full
def test_first_marks_the_beginnings_of_episodes(played):
    steps = played.steps
    np.testing.assert_array_equal(steps.first, steps.obs[:, :, 0, 0] == 0)
    np.testing.assert_array_equal(steps.first[0], True)
    np.testing.assert_array_equal(steps.first[1:], (steps.terminated | steps.truncated)[:-1])


def test_episodes_end_in_all_ways(played):
    steps, count = played.steps, played.steps.obs[:, :, 0, 0]
    np.testing.assert_array_equal(steps.terminated, np.all(steps.action <= 0, axis=-1))
    np.testing.assert_array_equal(steps.truncated, (count == LIMIT - 1) & ~steps.terminated)
    assert steps.truncated.any()
    assert steps.terminated[count < LIMIT - 1].any()
    assert steps.terminated[count == LIMIT - 1].any()


def test_only_legal_actions_are_played(played):
    chosen = np.take_along_axis(played.steps.legal, played.steps.action[..., None], axis=-1)
    assert chosen.all()
    assert not played.steps.legal.all()


def test_rewards_are_those_of_the_actions_played(played):
    steps = played.steps
    expected = steps.obs[:, :, 0, 0] + 1 + steps.action.sum(-1)
    np.testing.assert_array_equal(steps.reward, expected)


def test_recurrent_state_does_not_leak_over_episode_ends(played, episodes, replayed):
    steps, (outputs, values) = played.steps, replayed
    for e, (env, times) in enumerate(episodes):
        for s, t in enumerate(times):
            np.testing.assert_allclose(steps.value[t, env], values[s, e], rtol=1e-4, atol=1e-5)
            logits = {"logits": outputs["logits"][s, e]}
            log_prob = played.team.distribution.log_prob(
                logits, steps.legal[t, env], steps.action[t, env]
            )
            np.testing.assert_allclose(steps.log_prob[t, env], log_prob, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["actor", "critic"])
def test_chunks_start_from_the_carries_of_a_replay(played, side):
    role = getattr(played.team, side)
    weights = played.weights[("actor", "critic").index(side)]
    inputs = played.steps.obs if side == "actor" else played.steps.state
    never = jnp.zeros((1, ENVS), bool)
    step = jax.jit(
        lambda carry, x: forward(role.network, weights, carry, x[None], never, agent_axis=2)[0]
    )
    carry = jnp.zeros((ENVS, 2, 8))
    stored = np.concatenate([getattr(one, f"{side}_carry") for one in played.trajectories])
    for t in range(2 * LENGTH):
        if t % CHUNK == 0:
            np.testing.assert_allclose(stored[t // CHUNK], carry, rtol=1e-4, atol=1e-5)
        begins = played.steps.first[t][:, None, None]
        carry = step(jnp.where(begins, 0.0, carry), inputs[t])
    np.testing.assert_allclose(
        getattr(played.runners[2], f"{side}_carry"), carry, rtol=1e-4, atol=1e-5
    )


def test_episode_sums_run_on_over_trajectories(played):
    steps, running = played.steps, np.zeros(ENVS)
    sums = np.zeros((2, 3))
    for t in range(2 * LENGTH):
        running += steps.reward[t]
        ended, wins = steps.terminated[t] | steps.truncated[t], steps.terminated[t].sum()
        sums[t // LENGTH] += ended.sum(), running[ended].sum(), wins
        running[ended] = 0
    np.testing.assert_array_equal(np.asarray(played.episodes), sums)
    np.testing.assert_array_equal(played.runners[2].episode_return, running)
    assert np.asarray(played.runners[1].episode_return).any()


def test_truncated_steps_lead_to_the_value_of_the_true_last_observation(played, episodes, replayed):
    _, values = replayed
    following = np.concatenate([next_values(played, one)[1] for one in played.trajectories])
    cut = [(e, env, times) for e, (env, times) in enumerate(episodes)
           if played.steps.truncated[times[-1], env]]  # fmt: skip
    per_trajectory = np.zeros((2, ENVS))
    for e, env, times in cut:
        t = times[-1]
        per_trajectory[t // LENGTH, env] += 1
        assert len(times) == LIMIT
        np.testing.assert_allclose(following[t, env], values[LIMIT, e], rtol=1e-4, atol=1e-5)
        if t + 1 < 2 * LENGTH:
            assert np.abs(following[t, env] - played.steps.value[t + 1, env]).max() > 1e-3
    assert per_trajectory.min() >= 2


def test_other_steps_lead_to_the_next_steps_value(played):
    for trajectory in played.trajectories:
        steps, following = next_values(played, trajectory)
        onward = ~np.asarray(steps.truncated)
        np.testing.assert_array_equal(following[:-1][onward[:-1]], steps.value[1:][onward[:-1]])
        np.testing.assert_array_equal(following[-1][onward[-1]], trajectory.last_value[onward[-1]])


def test_the_value_after_a_trajectory_is_that_of_the_next_trajectorys_first_step(played):
    first = played.trajectories[1].transitions.value[0, 0]
    np.testing.assert_allclose(played.trajectories[0].last_value, first, rtol=1e-5, atol=1e-6)


def test_slots_count_an_environments_truncations_in_its_trajectory(played):
    for trajectory in played.trajectories:
        steps = jax.tree.map(rollout.merge_time, trajectory.transitions)
        truncated = np.asarray(steps.truncated, int)
        before = np.cumsum(truncated, axis=0) - truncated
        np.testing.assert_array_equal(steps.slot, before)
        assert trajectory.end_values.shape[0] == -(-LENGTH // LIMIT)


class Drawn(NamedTuple):
    """A counter's state, and the number of steps after which its episode is truncated."""

    count: Any
    limit: jax.Array


@pytest.fixture(scope="module", params=[1, 2], ids=["one trajectory", "its continuation"])
def early(request, counter, make_team, make_state):
    """A trajectory of episodes that are truncated after 1 to 4 steps, with max_steps of 12."""

    class Early(counter):
        truncates_early = True

        def reset(self, key):
            count, timestep = super().reset(key)
            return Drawn(count, jax.random.randint(key, (), 1, 5)), timestep

        def step(self, key, state, actions):
            count, timestep = super().step(key, state.count, actions)
            return state._replace(count=count), timestep._replace(
                truncated=count.steps >= state.limit.astype(float)
            )

    team = make_team(Early(max_steps=12), nps(2), ps(2))
    state = make_state(team, ENVS)
    roles = (team.actor, state.actor), (team.critic, state.critic)
    weights = [role.scheme.weights(learner.banks) for role, learner in roles]
    unroll = jax.jit(
        lambda key, runner: rollout.unroll(key, team, *weights, runner, length=LENGTH, chunk=CHUNK)
    )
    after = state.runner
    for key in jax.random.split(jax.random.key(7), request.param):
        before = after
        after, trajectory, _ = unroll(key, before)
    return SimpleNamespace(team=team, critic=weights[1], runner=before, trajectory=trajectory)


def test_early_truncations_lead_to_the_values_of_their_true_last_observations(early):
    """Step by step: V of what the environment showed after each step, before any reset."""
    network, view = early.team.critic.network, jax.vmap(early.team.env.view)

    @jax.jit
    def value(carry, state, first):
        carry, out = forward(network, early.critic, carry, state[None], first[None], agent_axis=2)
        return carry, out["value"][0, ..., 0]

    steps, following = next_values(None, early.trajectory)
    carry, never, checked = early.runner.critic_carry, jnp.zeros(ENVS, bool), np.zeros(ENVS, int)
    for t in range(LENGTH):
        carry, _ = value(carry, steps.state[t], steps.first[t])
        count = steps.obs[t, :, 0, 0] + 1
        total = steps.obs[t, :, 0, 1] + steps.action[t].sum(-1).astype(float)
        _, expected = value(carry, view(count, total)[1], never)
        for env in np.flatnonzero(~np.asarray(steps.terminated[t])):
            np.testing.assert_allclose(following[t, env], expected[env], rtol=1e-4, atol=1e-5)
        checked += np.asarray(steps.truncated[t])
    assert checked.min() > -(-LENGTH // 12)


def test_room_is_kept_for_one_end_a_step_unless_the_environment_says_less(counter):
    class Silent:
        max_steps = 3

    assert truncation.slots_of(Silent(), 20) == 20
    assert truncation.slots_of(counter(max_steps=3), 20) == 7
    assert truncation.slots_of(make("specialisation_2", normalise="running"), 25) == 3


def test_choose_takes_whole_environments():
    new = {"a": jnp.ones((3, 2)), "b": jnp.ones(3)}
    old = jax.tree.map(jnp.zeros_like, new)
    chosen = resets.choose(jnp.array([True, False, True]), new, old)
    np.testing.assert_array_equal(chosen["a"], [[1, 1], [0, 0], [1, 1]])
    np.testing.assert_array_equal(chosen["b"], [1, 0, 1])


@pytest.mark.parametrize("num_envs", [1, 3, 20])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_just_the_ended_are_reset_each_with_its_own_key(num_envs, share):
    """A reset that tells its key; groups that do and do not divide the number of environments."""
    env = SimpleNamespace(reset=lambda key: (jax.random.normal(key, (2,)), jax.random.uniform(key)))
    keys = jax.random.split(jax.random.key(3), num_envs)
    ended = jnp.asarray(np.random.default_rng(0).random(num_envs) < share)
    now = jnp.zeros((num_envs, 2)), jnp.full(num_envs, -1.0)
    fresh = jax.vmap(env.reset)(keys)

    def reset(ended):
        return resets.reset_ended(env, ended, keys, now)

    both = jnp.stack([ended, ~ended])
    for found, which in (
        (reset(ended), ended),
        (jax.tree.map(lambda x: x[1], jax.vmap(reset)(both)), ~ended),
    ):
        for got, new, old in zip(found, fresh, now, strict=True):
            mask = which.reshape(-1, *(1,) * (got.ndim - 1))
            np.testing.assert_array_equal(got, jnp.where(mask, new, old))
