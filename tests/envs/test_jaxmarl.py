"""JaxMARL's other environments: upstream's dictionaries, padded, masked, timed; and they train."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_training import train

from lorasa_jax import envs
from lorasa_jax.envs import jaxmarl
from lorasa_jax.envs.stacked import upstream
from lorasa_jax.errors import ConfigError

pytestmark = pytest.mark.upstream

KEY = jax.random.key(0)
QUICK = ("jaxmarl_MPE_simple_speaker_listener_v4", "jaxmarl_hanabi", "jaxmarl_storm_2p")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in jaxmarl.NAMES if name not in QUICK]
# Upstream warns of old engines and of integers that become booleans.
patient = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
make = functools.cache(jaxmarl.make)


@functools.cache
def played(name, steps=30):
    """Random legal play by us and by upstream: env, our time steps and legality, its answers.

    Arrays [step, ...], the reset included as step 0 in ours; nothing is reset at an end.
    """
    env = make(name)

    def act(key, legal):
        if env.discrete:
            return jnp.argmax(jnp.where(legal, jax.random.gumbel(key, legal.shape), -1e9), axis=-1)
        return jax.random.uniform(key, legal.shape, minval=-1.0)

    def run(key):
        ours = env.reset(key)
        obs, theirs = env.game.reset(key)

        def step(carry, key):
            (state, timestep), theirs = carry
            act_key, step_key = jax.random.split(key)
            actions = act(act_key, timestep.legal)
            ours = env.step(step_key, state, actions)
            answer = env.game.step_env(step_key, theirs, env._to_upstream(actions))
            theirs = jax.tree.map(jaxmarl._strong, answer[1])
            return (ours, theirs), (ours[1], answer[0], answer[2], answer[3])

        carry = ours, jax.tree.map(jaxmarl._strong, theirs)
        (_, theirs), results = jax.lax.scan(step, carry, jax.random.split(key, steps))
        return ours[1], obs, *results

    first, first_obs, *rest = jax.tree.map(np.asarray, jax.jit(run)(KEY))
    return env, first, first_obs, *rest


def flattened(env, obs, rank):
    """[agent] vectors [..., feature], written out for each of upstream's forms.

    rank: axes of one agent's observation, where it is a single array.
    """
    if isinstance(obs, dict) and set(env._keys) <= set(obs):
        trees = [obs[key] for key in env._keys]
    elif isinstance(obs, dict):  # storm
        scenes, bags = obs["observations"], obs["inventory"]
        scenes = np.moveaxis(scenes, -4, 0)
        trees = [[scene, bags[..., i], bags[..., 3:, :]] for i, scene in enumerate(scenes)]
        ranks = (3, 1, 2)
        return [_join(tree, ranks) for tree in trees]
    elif isinstance(obs, tuple):  # storm_2p
        return [_join([part["inventory"], part["observation"]], (1, 3)) for part in obs]
    else:  # storm_np
        return [_join([scene], (3,)) for scene in np.moveaxis(obs, -4, 0)]
    return [_join([tree], (rank,)) for tree in trees]


def _join(parts, ranks):
    parts = [np.asarray(part, np.float32) for part in parts]
    return np.concatenate(
        [
            part.reshape(*part.shape[: part.ndim - rank], -1)
            for part, rank in zip(parts, ranks, strict=True)
        ],
        axis=-1,
    )


@pytest.mark.sample(1)
@patient
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_time_steps_are_upstreams(name):
    """Equal exactly: padded observations, mean reward, endings; everybody has a legal action."""
    env, first, first_obs, timestep, obs, rewards, dones = played(name)
    rank = jax.tree.leaves(first_obs)[0].ndim
    for ours, theirs in ((first, first_obs), (timestep, obs)):
        rows = flattened(env, theirs, rank)
        assert max(row.shape[-1] for row in rows) == env.observation_size
        for i, row in enumerate(rows):
            np.testing.assert_array_equal(ours.obs[..., i, : row.shape[-1]], row)
            assert not ours.obs[..., i, row.shape[-1] :].any()
        whole = theirs["world_state"] if "world_state" in theirs else np.concatenate(rows, axis=-1)
        assert whole.shape[-1] == env.state_size
        for i in range(env.num_agents):
            np.testing.assert_array_equal(ours.state[..., i, :], whole)
    each = rewards
    if isinstance(rewards, dict):
        each = np.stack([rewards[key] for key in env._keys], axis=-1)
    elif isinstance(rewards, tuple):
        each = np.stack(rewards, axis=-1)
    np.testing.assert_allclose(timestep.reward, each.mean(-1), rtol=1e-5, atol=1e-6)
    ended = np.cumsum(dones["__all__"])
    going = ended == 0
    within = np.arange(1, len(going) + 1) < env.max_steps
    assert not timestep.terminated[going].any()
    np.testing.assert_array_equal(timestep.terminated[within], dones["__all__"][within])
    assert timestep.legal[going].any(-1).all() and not timestep.info["illegal"][going].any()
    assert np.isfinite(timestep.obs).all() and np.isfinite(timestep.state).all()


def test_ids_follow_the_padding():
    """Speaker and listener see 3 and 11 numbers, and have 3 and 5 actions."""
    env = envs.make("jaxmarl_MPE_simple_speaker_listener_v4")
    assert (env.observation_size, env.state_size, env.action_space) == (13, 16, envs.Discrete(5))
    _, timestep = jax.jit(env.reset)(KEY)
    np.testing.assert_array_equal(timestep.obs[:, 11:], np.eye(2))
    assert not timestep.obs[0, 3:11].any() and timestep.obs[1, 2:8].all()
    np.testing.assert_array_equal(timestep.legal, [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


def test_actions_that_an_agent_lacks_are_its_last_or_first_and_counted():
    env = make("jaxmarl_MPE_simple_speaker_listener_v4")
    state, _ = env.reset(KEY)
    step = jax.jit(env.step)
    _, wrong = step(KEY, state, jnp.array([4, 4]))
    _, right = step(KEY, state, jnp.array([2, 4]))
    assert (wrong.info["illegal"], right.info["illegal"]) == (1, 0)
    np.testing.assert_array_equal(wrong.obs, right.obs)
    _, wrong = step(KEY, state, jnp.array([-1, -7]))
    _, right = step(KEY, state, jnp.array([0, 0]))
    assert (wrong.info["illegal"], right.info["illegal"]) == (2, 0)
    np.testing.assert_array_equal(wrong.obs, right.obs)


@pytest.mark.parametrize("limit", [None, 7])
def test_particles_are_truncated_at_their_horizon(limit):
    """Upstream's episodes last one step longer, and end like any other."""
    env = jaxmarl.make("jaxmarl_MPE_simple_spread_v3", max_steps=limit)
    horizon = limit or 25
    assert env.max_steps == horizon
    game = upstream().make("MPE_simple_spread_v3", max_steps=horizon)
    step, upstreams_step = jax.jit(env.step), jax.jit(game.step_env)
    state, _ = env.reset(KEY)
    _, theirs = game.reset(KEY)
    for t in range(1, horizon + 2):
        state, timestep = step(KEY, state, jnp.zeros(3, int))
        _, theirs, _, dones, _ = upstreams_step(KEY, theirs, dict.fromkeys(game.agents, 0))
        assert not timestep.terminated
        assert timestep.truncated == (t >= horizon)
        assert dones["__all__"] == (t == horizon + 1)


def test_the_riddle_ends_when_told_and_else_by_its_clock():
    env = make("jaxmarl_switch_riddle")
    step = jax.jit(env.step)
    state, timestep = env.reset(KEY)
    for _ in range(5):
        state, timestep = step(KEY, state, jnp.zeros(3, int))
        assert not timestep.terminated and not timestep.truncated
    _, silent = step(KEY, state, jnp.zeros(3, int))
    assert silent.truncated and not silent.terminated and silent.reward == 0
    _, told = step(KEY, state, jnp.full(3, 2))
    assert told.terminated and not told.truncated and abs(told.reward) == 1


@pytest.mark.full
def test_overcooked_ends_by_its_clock_alone():
    env = jaxmarl.make("jaxmarl_overcooked_v2", max_steps=3)
    step = jax.jit(env.step)
    state, _ = env.reset(KEY)
    for t in range(1, 4):
        state, timestep = step(KEY, state, jnp.zeros(2, int))
        assert not timestep.terminated and timestep.truncated == (t == 3)


@pytest.mark.full
def test_hanabi_waits_for_its_turn():
    """Whoever is not to act may do nothing but pass; a game ends by termination."""
    env, first, _, timestep, *_ = played("jaxmarl_hanabi", 60)
    over = np.argmax(timestep.terminated)
    assert timestep.terminated.any() and not timestep.truncated.any() and env.max_steps == 100
    legal = np.concatenate([first.legal[None], timestep.legal[:over]])
    turns = np.arange(len(legal)) % 2
    waits = legal[np.arange(len(legal)), 1 - turns]
    acts = legal[np.arange(len(legal)), turns]
    passing = np.arange(legal.shape[-1]) == legal.shape[-1] - 1
    np.testing.assert_array_equal(waits, np.broadcast_to(passing, waits.shape))
    assert (acts.sum(-1) > 1).all() and not acts[:, -1].any()


def test_continuous_actions_are_scaled_to_upstreams_bounds():
    env = make("jaxmarl_MPE_simple_world_comm_v3")
    assert env.action_space == envs.Box(9)
    sizes = [9, 5, 5, 5, 5, 5]
    np.testing.assert_array_equal(env.reset(KEY)[1].legal.sum(-1), sizes)
    for given, wanted in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0), (3.0, 1.0)):
        actions = env._to_upstream(jnp.full((6, 9), given))
        assert [actions[agent].shape for agent in env.agents] == [(size,) for size in sizes]
        for action in actions.values():
            np.testing.assert_allclose(action, wanted)


@pytest.mark.parametrize("chosen", ["mean", "sum", "first", "agent_2"])
def test_team_reward(chosen):
    env = jaxmarl.make("jaxmarl_MPE_simple_spread_v3", team_reward=chosen)
    rewards = {"agent_0": 1.0, "agent_1": 2.0, "agent_2": 6.0}
    expected = {"mean": 3, "sum": 9, "first": 1, "agent_2": 6}[chosen]
    assert env._team_reward(rewards, {}) == expected


def test_shaped_reward_is_added():
    env = jaxmarl.make("jaxmarl_overcooked_v2", shaped_reward=0.5, team_reward="sum")
    rewards, shaped = {"agent_0": 20.0, "agent_1": 20.0}, {"agent_0": 3.0, "agent_1": 0.0}
    assert env._team_reward(rewards, {"shaped_reward": shaped}) == 41.5


def test_arguments_reach_upstream():
    env = jaxmarl.make("jaxmarl_MPE_simple_spread_v3", arguments={"num_agents": 4})
    assert env.num_agents == 4
    small, big = (
        jaxmarl.make("jaxmarl_overcooked", arguments={"layout": layout})
        for layout in ("cramped_room", "forced_coord")
    )
    assert small.observation_size == 4 * 5 * 26 != big.observation_size


@patient
@pytest.mark.slow
@pytest.mark.parametrize("limit", [3, 1000])
def test_mabrax_tells_falls_from_time_outs(limit):
    """Episodes go on to their true last observation: upstream's own reset is off."""
    env = jaxmarl.make("jaxmarl_hopper_3x1", max_steps=limit)
    step = jax.jit(env.step)
    state, timestep = env.reset(KEY)
    t = 0
    while not (timestep.terminated or timestep.truncated):
        state, timestep = step(KEY, state, jnp.ones((3, 1)))
        t += 1
    assert timestep.truncated == (limit == 3) and timestep.terminated != timestep.truncated
    assert t == 3 if limit == 3 else t < 1000


def test_names_are_upstreams():
    """All but JaxRobotarium's, a package of its own, and a map that needs a trained enemy."""
    registered = {
        name
        for name in upstream("jaxmarl.registration").registered_envs
        if not name.startswith("JaxRobotarium") and name != "LearnedPolicyEnemySMAX"
    }
    assert set(jaxmarl.IDS) == registered
    assert envs.canonical("jaxmarl_humanoid_9|8") == "jaxmarl_humanoid_9_8"


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("jaxmarl_chess", {}, ("env=jaxmarl_chess", "jaxmarl_hanabi", "jaxmarl_storm_np")),
        ("jaxmarl_hanabi", {"max_steps": 0}, ("env.max_steps=0", "at least 1")),
        ("jaxmarl_hanabi", {"team_reward": "max"}, ("env.team_reward=max", "mean", "agent_1")),
        ("jaxmarl_hanabi", {"shaped_reward": 1}, ("env.shaped_reward=1", "must be 0")),
        ("jaxmarl_hanabi", {"shaped_reward": "x"}, ("env.shaped_reward=x", "number")),
        ("jaxmarl_hanabi", {"arguments": {"colour": 1}}, ("hanabi", "colour")),
        ("jaxmarl_overcooked", {"arguments": {"layout": "x"}}, ("layout=x", "cramped_room")),
        ("jaxmarl_overcooked", {"arguments": {"max_steps": 9}}, ("max_steps", "env.max_steps")),
    ],
)
def test_refusals(name, options, words):
    with pytest.raises(ConfigError) as refusal:
        envs.make(name, **options)
    message = str(refusal.value)
    assert message[-1] in ".?" and ". " not in message and "\n" not in message
    for word in words:
        assert word in message


def test_a_team_of_discrete_and_continuous_agents_is_refused():
    spaces = upstream("jaxmarl.environments.spaces")

    class Mixed:
        agents = ("walker", "caller")

        def action_space(self, agent):
            return spaces.Discrete(3) if agent == "caller" else spaces.Box(-1, 1, (2,))

    with pytest.raises(ConfigError, match="mixes discrete and continuous actions"):
        jaxmarl.JaxMarl("mixed", Mixed(), 10)


@pytest.mark.full
def test_upstream_is_imported_without_a_word():
    """It prints, and puts back the interpreter's first stdout; a redirection must survive that."""
    code = (
        "import io, sys; sys.stdout = mine = io.StringIO()\n"
        "from lorasa_jax.envs.stacked import upstream; upstream()\n"
        "assert sys.stdout is mine and not mine.getvalue(), mine.getvalue()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "jaxmarl_MPE_simple_spread_v3",
        "jaxmarl_MPE_simple_reference_v3",
        "jaxmarl_overcooked_v2",
        "jaxmarl_hanabi",
        "jaxmarl_storm_2p",
        *(
            pytest.param(name, marks=[pytest.mark.slow, patient])
            for name in ("jaxmarl_overcooked", "jaxmarl_storm", "jaxmarl_storm_np",
                         "jaxmarl_MPE_simple_world_comm_v3", "jaxmarl_hopper_3x1")
        ),
    ],
)  # fmt: skip
def test_trains(name):
    """Two updates: everything finite, episodes end, parameters move."""
    _, progress = train(f"env={name}", "env.max_steps=15")
    assert progress.episodes.count[0] >= 8
