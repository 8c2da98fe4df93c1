"""The small tasks: payoffs by hand, optima, chance levels; and every environment's API."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import envs
from lorasa_jax.envs import games

KEY = jax.random.key(0)
MATRIX_GAMES = [name for name in games.NAMES if not name.startswith("probe")]


def play(env, act, episodes=4000):
    """Returns [episode] of `act(key, first_obs, obs, step) -> actions`."""

    def episode(key):
        reset_key, key = jax.random.split(key)
        state, first = env.reset(reset_key)

        def step(carry, inputs):
            state, obs = carry
            key, t = inputs
            state, timestep = env.step(key, state, act(key, first.obs, obs, t))
            return (state, timestep.obs), timestep.reward

        inputs = jax.random.split(key, env.max_steps), jnp.arange(env.max_steps)
        return jax.lax.scan(step, (state, first.obs), inputs)[1].sum()

    return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(KEY, episodes)), float)


def random_actions(env):
    def act(key, first, obs, t):
        if isinstance(env.action_space, envs.Discrete):
            return jax.random.randint(key, (env.num_agents,), 0, env.action_space.n)
        return jax.random.uniform(key, (env.num_agents, env.action_space.size), minval=-1.0)

    return act


def payoff(name, actions):
    """Reward of one step, times the horizon."""
    env = envs.make(name)
    state, _ = env.reset(KEY)
    return float(env.step(KEY, state, jnp.array(actions))[1].reward) * env.max_steps


@pytest.mark.parametrize(
    "actions, expected",
    [
        ((0, 1), 1.0),
        ((1, 0), 1.0),
        ((0, 0), 1 / 2),
        ((1, 1), 1 / 2),
        ((0, 1, 2, 3), 1.0),
        ((3, 1, 0, 2), 1.0),
        ((0, 0, 1, 2), (1 / 2 + 1 / 2 + 1 + 1) / 4),
        ((0, 0, 1, 1), 1 / 2),
        ((2, 2, 2, 1), (3 * 1 / 3 + 1) / 4),
        ((3, 3, 3, 3), 1 / 4),
    ],
)
def test_specialisation_payoffs(actions, expected):
    np.testing.assert_allclose(payoff(f"specialisation_{len(actions)}", actions), expected, 1e-6)


@pytest.mark.parametrize(
    "actions, expected",
    [
        ((0, 0), 1.0),
        ((1, 1), 1.0),
        ((0, 1), 1 / 2),
        ((2, 2, 2, 2), 1.0),
        ((0, 0, 0, 1), (3 * 1 / 2 + 1 / 4) / 4),
        ((0, 0, 1, 1), 1 / 3),
        ((0, 0, 1, 2), (2 * 1 / 3 + 2 * 1 / 4) / 4),
        ((0, 1, 2, 3), 1 / 4),
    ],
)
def test_synchronisation_payoffs(actions, expected):
    np.testing.assert_allclose(payoff(f"synchronisation_{len(actions)}", actions), expected, 1e-6)


def test_everyone_sees_everyones_last_actions():
    env = envs.make("specialisation_4", agent_ids=False)
    state, timestep = env.reset(KEY)
    np.testing.assert_array_equal(timestep.obs, -np.ones((4, 16)))
    for actions in ([3, 0, 0, 2], [1, 1, 2, 3]):
        state, timestep = env.step(KEY, state, jnp.array(actions))
        np.testing.assert_array_equal(timestep.obs, np.tile(np.eye(4)[actions].ravel(), (4, 1)))
        np.testing.assert_array_equal(timestep.state, timestep.obs)


def best_actions(name):
    """An optimal policy, which may remember the first observation."""
    n = envs.make(name).num_agents
    named = {
        "probe_action": lambda key, first, obs, t: (obs[:, 0] > 0).astype(int),
        "probe_action_continuous": lambda key, first, obs, t: 0.5 * obs[:, :1],
        "probe_memory": lambda key, first, obs, t: (first[:, 0] > 0).astype(int),
    }
    if name.startswith("specialisation"):
        return lambda key, first, obs, t: (jnp.arange(n) + t) % n
    if name.startswith("synchronisation"):
        return lambda key, first, obs, t: jnp.full(n, t % n)
    return named.get(name, lambda key, first, obs, t: jnp.zeros(n, int))


@pytest.mark.parametrize("name", [name for name in games.NAMES if name != "probe_observation"])
def test_optimum_is_reached_in_every_episode(name):
    env = envs.make(name, agent_ids=False)
    np.testing.assert_allclose(play(env, best_actions(name), episodes=20), env.optimum, atol=1e-5)


def test_optimum_of_the_observation_probe_is_a_mean():
    env = envs.make("probe_observation", agent_ids=False)
    returns = play(env, best_actions("probe_observation"))
    np.testing.assert_array_equal(np.abs(returns), 1)
    assert abs(returns.mean() - env.optimum) < 4 / np.sqrt(len(returns))
    np.testing.assert_array_equal(np.unique(returns), [-1, 1])


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", games.NAMES)
def test_random_play_earns_what_is_stated(name):
    """Monte Carlo, 4 standard errors."""
    env = envs.make(name, agent_ids=False)
    returns = play(env, random_actions(env))
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - env.random) <= 4 * error + 1e-6
    assert env.random <= env.optimum


@pytest.mark.parametrize("kind", ["specialisation", "synchronisation"])
@pytest.mark.parametrize("n", [2, 4])
def test_random_play_counted_out(kind, n):
    """The mean over all n^n joint actions."""
    env = envs.make(f"{kind}_{n}")
    state, _ = env.reset(KEY)
    joint = jnp.array(list(itertools.product(range(n), repeat=n)))
    rewards = jax.vmap(lambda actions: env.step(KEY, state, actions)[1].reward)(joint)
    np.testing.assert_allclose(rewards.mean() * env.max_steps, env.random, rtol=1e-6)


@pytest.mark.parametrize("name", games.NAMES)
def test_games_end_by_termination_at_their_horizon(name):
    env = envs.make(name)
    if name in MATRIX_GAMES:
        assert env.max_steps == 10
    state, timestep = env.reset(KEY)
    assert not timestep.terminated and timestep.reward == 0
    for t in range(1, env.max_steps + 1):
        state, timestep = env.step(KEY, state, random_actions(env)(KEY, None, None, t))
        assert timestep.terminated == (t == env.max_steps) and not timestep.truncated


def test_memory_probe_shows_its_sign_once():
    env = envs.make("probe_memory", agent_ids=False)
    signs = set()
    for seed in range(8):
        state, timestep = env.reset(jax.random.key(seed))
        sign = float(timestep.obs[0, 0])
        signs.add(sign)
        np.testing.assert_array_equal(timestep.obs, [[sign, -sign, 0]])
        for t in range(env.max_steps):
            state, timestep = env.step(KEY, state, jnp.array([int(sign > 0)]))
            np.testing.assert_array_equal(timestep.obs, [[0, 0, 1]])
            assert float(timestep.reward) == (t == env.max_steps - 1)
    assert signs == {-1.0, 1.0}


def test_continuous_probe_by_hand():
    env = envs.make("probe_action_continuous")
    state, timestep = env.reset(KEY)
    sign = float(timestep.obs[0, 0])
    for action, expected in ((0.5 * sign, 1.0), (-0.5 * sign, 0.0), (0.0, 0.75)):
        reward = env.step(KEY, state, jnp.array([[action]]))[1].reward
        np.testing.assert_allclose(reward, expected, atol=1e-6)


def every_name():
    """All names, with and without ids in turn; of StarCraft's and JaxMARL's, all but one are slow.

    tests/test_every_environment.py trains all of them.
    """
    quick = {"smax_3m", "smac_2s3z", "jaxmarl_MPE_simple_spread_v3"}
    for i, name in enumerate(envs.names()):
        family = name.split("_")[0]
        marks = [pytest.mark.upstream] if family in ("smax", "jaxmarl") else []
        long = family in ("smax", "smac", "jaxmarl") and name not in quick
        marks += [pytest.mark.slow] if long else []
        yield pytest.param(name, i % 2 == 0, marks=marks)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("name", "agent_ids"), every_name())
def test_api(name, agent_ids):
    """Under jit + vmap every environment gives what its sizes and its protocol say."""
    chosen = {"engine": "native"} if "engine" in envs.options(name) else {}
    env = envs.make(name, agent_ids=agent_ids, **chosen)
    num_envs, n = 3, env.num_agents
    assert len(env.agents) == len(set(env.agents)) == n

    discrete = isinstance(env.action_space, envs.Discrete)
    width = env.action_space.n if discrete else env.action_space.size
    shape = (num_envs, n) if discrete else (num_envs, n, width)
    actions = jnp.zeros(shape, int if discrete else float)

    keys = jax.random.split(KEY, num_envs)
    state, first = jax.jit(jax.vmap(env.reset))(keys)
    after, second = jax.jit(jax.vmap(env.step))(keys, state, actions)
    expected = {
        "obs": ((num_envs, n, env.observation_size), np.float32),
        "state": ((num_envs, n, env.state_size), np.float32),
        "reward": ((num_envs,), np.float32),
        "terminated": ((num_envs,), bool),
        "truncated": ((num_envs,), bool),
        "active": ((num_envs, n), bool),
        "legal": ((num_envs, n, width), bool),
    }
    for timestep in (first, second):
        for field, form in expected.items():
            value = getattr(timestep, field)
            assert (value.shape, value.dtype) == form, field
        assert timestep.legal.any(-1).all() and timestep.active.all()

    def form(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    assert form((state, first)) == form((after, second))  # a scan may carry them
