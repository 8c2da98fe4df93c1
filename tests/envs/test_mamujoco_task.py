"""The task around the physics: reward, health, clock, and what an action moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco_loop import PARTITION, PROFILES, ROBOTS, harvest, loop_of, pick

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco.environment import MultiAgentMujoco, RobotState, derived_fields
from lorasa_jax.envs.mamujoco.partitions import PARTITIONS, Partition
from lorasa_jax.envs.mamujoco.physics import PhysState, derived_shapes, load_model
from lorasa_jax.envs.mamujoco.robots import robot

KEY = jax.random.key(0)


class Frozen:
    """A stepper that moves nothing but all bodies' x, which is `x` (m) after a step."""

    def __init__(self, env, x=0.0):
        self.shapes, self.x = derived_shapes(env.model, derived_fields(env.robot)), x

    def forward(self, physics):
        return {name: jnp.zeros(shape) for name, shape in self.shapes.items()}

    def step(self, physics, ctrl):
        derived = self.forward(physics)
        for name in {"xpos", "xipos"} & set(derived):
            derived[name] = derived[name].at[:, 0].add(self.x)
        return physics, derived


class Recorder(NamedTuple):
    """A stepper that writes its controls into qvel."""

    def step(self, physics, ctrl):
        qvel = physics.qvel.at[: len(ctrl)].set(ctrl)
        return physics._replace(qvel=qvel), {"xpos": jnp.zeros((14, 3))}


def make(name="ant_4x2", **options):
    return envs.make(name, engine="native", agent_ids=False, **options)


def frozen(name="ant_4x2", x=0.0, **options):
    env = make(name, **options)
    env.stepper = Frozen(env, x)
    return env


def zeros(env):
    return jnp.zeros((env.num_agents, env.action_space.size))


def pose(env, height=None):
    """The rest pose, at another height (qpos of the root's z) if one is given."""
    qpos = np.array(env.model.qpos0)
    if height is not None:
        qpos[2 if env.robot.free_root else 1] = height
    return qpos, np.zeros(env.model.nv)


def standing(height=0.5):
    return np.r_[0.0, 0.0, height, 1.0, np.zeros(11)], np.zeros(14)


def joint_controls(model, partition, actions):
    """actions [agent, joint] by actuator, over its range, from the model's joint names."""
    wanted = {}
    for own, row in zip(partition.agents, actions, strict=True):
        wanted |= dict(zip(own, row, strict=False))
    named = [wanted[model.joint(model.actuator(i).trnid[0]).name] for i in range(model.nu)]
    low, high = model.actuator_ctrlrange.T
    return (low + high) / 2 + (high - low) / 2 * np.array(named)


# --- rewards and ends, by hand ---------------------------------------------------------------


def place(name, model, data):
    """What the v2 task rewards progress of, from MjData."""
    if name.startswith(("ant", "manyagent_ant")):
        return data.xpos[1, 0]
    if name == "humanoid":
        return model.body_mass @ data.xipos[:, 0] / model.body_mass.sum()
    if name == "reacher":
        return np.linalg.norm(data.body("fingertip").xpos - data.body("target").xpos)
    return data.qpos[0]


def reward_by_hand(name, loop, before, data):
    """Gym's v2 rewards, contact forces being zero."""
    speed, effort = (place(name, loop.model, data) - before) / loop.dt, np.square(data.ctrl).sum()
    if name == "halfcheetah":
        return speed - 0.1 * effort
    if name in ("walker2d", "hopper"):
        return speed + 1.0 - 1e-3 * effort
    if "swimmer" in name:
        return speed - 1e-4 * effort
    if name == "reacher":
        return -before - effort
    if name in ("ant", "manyagent_ant_4"):
        return speed + 1.0 - 0.5 * effort
    if name == "humanoid_standup":
        return data.qpos[2] / loop.model.opt.timestep - 0.1 * effort + 1.0
    assert name == "humanoid"
    return 1.25 * speed + 5.0 - 0.1 * effort


def fallen_by_hand(name, data):
    q, v = data.qpos, data.qvel
    if name == "walker2d":
        return not (0.8 < q[1] < 2.0 and -1.0 < q[2] < 1.0)
    if name == "hopper":
        return not (np.abs([*q[2:], *v]).max() < 100 and q[1] > 0.7 and abs(q[2]) < 0.2)
    if name in ("ant", "manyagent_ant_4"):
        return not 0.2 <= q[2] <= 1.0
    if name == "humanoid":
        return not 1.0 <= q[2] <= 2.0
    return False


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", ROBOTS)
def test_reward_and_end_against_the_loop(x64, name):
    """15 steps from 12 states, some falling or flipped: every reward, flag and state."""
    env, loop = make(PARTITION[name]), loop_of(name)
    starts, rng = pick(harvest(name), slice(0, 60, 5)), np.random.default_rng(2)
    upright = loop.model.qpos0 + rng.uniform(-0.05, 0.05, (6, loop.model.nq))
    starts.qpos[::2] = upright  # so that some stand
    starts.qvel[::2] = 0.0
    actions = rng.uniform(-1, 1, (15, 12, env.num_agents, env.action_space.size))
    state, _ = jax.jit(jax.vmap(env.set_physics))(starts.qpos, starts.qvel)
    step = jax.jit(jax.vmap(lambda state, actions: env.step(KEY, state, actions)))
    rows = list(zip(starts.qpos, starts.qvel, strict=True))
    loops = [loop.data(*row) for row in rows]
    before = [place(name, loop.model, loop.at_rest(*row)) for row in rows]
    np.testing.assert_allclose(state.measure, before, rtol=0, atol=1e-13)
    ended = []
    for t in range(15):
        state, timestep = step(state, actions[t])
        rewards = []
        for i, data in enumerate(loops):
            loop.step(data, joint_controls(loop.model, env.partition, actions[t, i]))
            rewards.append(reward_by_hand(name, loop, before[i], data))
        np.testing.assert_allclose(timestep.reward, rewards, rtol=1e-13, atol=1e-11)
        before = [place(name, loop.model, data) for data in loops]
        np.testing.assert_allclose(state.measure, before, rtol=0, atol=1e-13)
        ended.append([fallen_by_hand(name, data) for data in loops])
        np.testing.assert_array_equal(timestep.terminated, ended[-1])
        assert not timestep.truncated.any()
        np.testing.assert_array_equal(state.physics.qpos, [data.qpos for data in loops])
    falls = bool(env.robot.health)
    assert 0 < np.mean(ended) < 1 if falls else not np.any(ended)


def test_forward_reward_lags(x64, reference, touching):
    """The torso's place is that of the last internal evaluation: the returned qpos would be off."""
    gaps = []
    for row in zip(touching.qpos, touching.qvel, strict=True):
        data = reference.data(*row)
        reference.step(data, np.zeros(8))
        gaps.append(abs(data.body("torso").xpos[0] - data.qpos[0]))
    assert max(gaps) > 1e-4


BEYOND = np.nextafter


@pytest.mark.parametrize(
    "name, profile, height, ends",
    [
        ("ant_4x2", "lorasa", 0.2, False),
        ("ant_4x2", "lorasa", BEYOND(0.2, 0), True),
        ("ant_4x2", "lorasa", 1.0, False),
        ("ant_4x2", "lorasa", BEYOND(1.0, 2), True),
        ("ant_4x2", "lorasa", 0.6, False),
        ("ant_4x2", "lorasa", -1.0, True),
        ("ant_4x2", "lorasa", np.nan, True),
        ("ant_4x2", "lorasa", np.inf, True),
        ("ant_4x2", "gymnasium", 1.0, False),
        ("manyagent_ant_2x2", "lorasa", BEYOND(0.2, 0), True),
        ("humanoid_9_8", "lorasa", 1.0, False),
        ("humanoid_9_8", "lorasa", 2.0, False),
        ("humanoid_9_8", "lorasa", BEYOND(2.0, 3), True),
        ("humanoid_9_8", "gymnasium", 1.0, True),
        ("humanoid_9_8", "gymnasium", 2.0, True),
        ("humanoid_9_8", "gymnasium", BEYOND(2.0, 0), False),
        ("walker2d_3x2", "lorasa", 0.8, True),
        ("walker2d_3x2", "lorasa", BEYOND(0.8, 1), False),
        ("walker2d_3x2", "lorasa", 2.0, True),
        ("hopper_3x1", "lorasa", 0.7, True),
        ("hopper_3x1", "lorasa", 5.0, False),
        ("halfcheetah_2x3", "lorasa", 9.0, False),
        ("humanoid_standup_9_8", "lorasa", 0.1, False),
        ("halfcheetah_2x3", "lorasa", np.nan, True),
        ("humanoid_standup_9_8", "gymnasium", np.nan, True),
    ],
)
def test_healthy_heights(x64, name, profile, height, ends):
    """Of ants and the v2 humanoid the bounds themselves are healthy; of all others they are not."""
    env = frozen(name, profile=profile)
    state, timestep = env.set_physics(*pose(env, height))
    assert not timestep.terminated
    _, timestep = env.step(KEY, state, zeros(env))
    assert timestep.terminated == ends and not timestep.truncated


@pytest.mark.parametrize(
    "name, field, entry, value, ends",
    [
        ("walker2d_3x2", 0, 2, 1.0, True),
        ("walker2d_3x2", 0, 2, -0.99, False),
        ("hopper_3x1", 0, 2, -0.2, True),
        ("hopper_3x1", 0, 2, 0.19, False),
        ("hopper_3x1", 0, 5, 100.0, True),
        ("hopper_3x1", 1, 0, -100.0, True),
        ("hopper_3x1", 1, 0, -99.0, False),
    ],
)
def test_other_bounds_of_health(x64, name, field, entry, value, ends):
    env = frozen(name)
    injected = pose(env, 1.25)
    injected[field][entry] = value
    state, _ = env.set_physics(*injected)
    assert env.step(KEY, state, zeros(env))[1].terminated == ends


@pytest.mark.parametrize("field, entry", [(0, 0), (0, 14), (1, 0), (1, 13)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_physics_ends_the_episode(field, entry, value):
    env = frozen()
    injected = standing()
    injected[field][entry] = value
    state, _ = env.set_physics(*injected)
    assert env.step(KEY, state, zeros(env))[1].terminated


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("spoilt", ["qpos", "qvel", "action"])
def test_non_finite_input_ends_the_episode_in_the_c_engine(name, spoilt, tmp_path, monkeypatch):
    """MuJoCo must not put the robot back to its feet unseen; its neighbour is unharmed."""
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings
    env = make(PARTITION[name])
    qpos, qvel = (np.stack([x, x]) for x in pose(env))
    actions = np.zeros((2, env.num_agents, env.action_space.size))
    {"qpos": qpos, "qvel": qvel, "action": actions.reshape(2, -1)}[spoilt][0, 0] = np.nan
    state, _ = jax.vmap(env.set_physics)(qpos, qvel)
    _, timestep = jax.jit(jax.vmap(env.step, in_axes=(None, 0, 0)))(KEY, state, actions)
    np.testing.assert_array_equal(timestep.terminated, [True, False])
    np.testing.assert_array_equal(np.isfinite(timestep.reward), [False, True])
    assert np.isfinite(timestep.obs[1]).all() and np.isfinite(timestep.state[1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused_where_they_are_known(value):
    env = make()
    state, _ = env.reset(KEY)
    with pytest.raises(ValueError, match=r"the actions are not all finite .*\.$") as refusal:
        env.step(KEY, state, np.full((4, 2), value))
    assert ". " not in str(refusal.value)


@pytest.mark.parametrize("height", [0.5, 0.1])
@pytest.mark.parametrize("profile", PROFILES)
def test_reward_terms_of_the_ant(x64, profile, height):
    """velocity + 1 - 0.5 sum of squares; v2 pays the 1 on the terminating step (0.1 m) too."""
    env = frozen(x=0.15, profile=profile)
    state, _ = env.set_physics(*standing(height))
    _, timestep = env.step(KEY, state, np.full((4, 2), 0.5))
    survival = 1.0 if profile == "lorasa" or height == 0.5 else 0.0
    np.testing.assert_allclose(timestep.reward, 3.0 + survival - 0.5 * 8 * 0.25, atol=1e-12)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    "name, bonus, fallen",
    [
        ("walker2d_3x2", 1.0, 0.3),
        ("hopper_3x1", 1.0, 0.3),
        ("ant_4x2", 1.0, 0.1),
        ("manyagent_ant_2x2", 1.0, 0.1),
        ("humanoid_9_8", 5.0, 0.5),
    ],
)
def test_survival_bonus(x64, name, bonus, fallen, profile):
    """v2 pays it on the last step as well, v5 only while the robot is healthy."""
    env = frozen(name, profile=profile)
    for height, alive in ((1.25 if "ant" not in name else 0.5, True), (fallen, False)):
        state, _ = env.set_physics(*pose(env, height))
        _, timestep = env.step(KEY, state, zeros(env))
        assert timestep.terminated != alive
        paid = bonus if alive or profile == "lorasa" else 0.0
        np.testing.assert_allclose(timestep.reward, paid, atol=1e-12)


def test_standing_up_is_paid_by_height(x64):
    for profile in PROFILES:
        env = frozen("humanoid_standup_9_8", profile=profile)
        state, _ = env.set_physics(*pose(env, 0.3))
        reward = env.step(KEY, state, zeros(env))[1].reward
        np.testing.assert_allclose(reward, 0.3 / 0.003 + 1.0, atol=1e-10)


@pytest.mark.parametrize("profile", PROFILES)
def test_reacher_pays_its_distance(x64, profile):
    """v2 takes it before the step, v5 after it."""
    env, loop = make("reacher_2x1", profile=profile), loop_of("reacher", profile)
    qpos, qvel = np.array([0.5, -1.0, 0.1, -0.05]), np.array([3.0, 5.0, 0.0, 0.0])
    state, _ = env.set_physics(qpos, qvel)
    _, timestep = env.step(KEY, state, np.full((2, 1), 0.5))
    data = loop.at_rest(qpos, qvel)
    distances = [place("reacher", loop.model, data)]
    data = loop.data(qpos, qvel)
    loop.step(data, np.full(2, 0.5))
    distances.append(place("reacher", loop.model, data))
    assert abs(distances[1] - distances[0]) > 1e-3
    expected = -distances[profile == "gymnasium"] - 0.5
    np.testing.assert_allclose(timestep.reward, expected, rtol=0, atol=1e-12)


# --- clock -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name, limit", [("ant_4x2", 1000), ("reacher_2x1", 50)])
def test_truncation_at_the_last_step_only(name, limit):
    env = frozen(name)
    assert env.max_steps == limit
    state, _ = env.set_physics(*pose(env))

    def step(state, _):
        state, timestep = env.step(KEY, state, zeros(env))
        return state, (timestep.truncated, timestep.terminated)

    truncated, terminated = jax.lax.scan(step, state, length=limit)[1]
    np.testing.assert_array_equal(truncated, np.arange(1, limit + 1) == limit)
    assert not terminated.any()


def test_only_the_reacher_is_short():
    lengths = {name: make(PARTITION[name]).max_steps for name in ROBOTS}
    assert lengths.pop("reacher") == 50 and set(lengths.values()) == {1000}


def test_truncation_of_the_real_robot():
    env = make()
    state, _ = env.reset(KEY)
    state = state._replace(steps=jnp.full_like(state.steps, 998))
    state, timestep = env.step(KEY, state, zeros(env))
    assert not timestep.truncated
    _, timestep = env.step(KEY, state, zeros(env))
    assert timestep.truncated and not timestep.terminated


def test_step_does_not_reset(x64, reference):
    """A fallen robot falls on, a clock that has run out runs on."""
    env = make()
    qpos, qvel = standing(5.0)
    state, _ = env.set_physics(qpos, qvel)
    data = reference.data(qpos, qvel)
    state = state._replace(steps=jnp.asarray(999, jnp.int32))
    for clock in (1000, 1001):
        state, timestep = env.step(KEY, state, zeros(env))
        assert timestep.terminated and timestep.truncated
        assert state.steps == clock
        np.testing.assert_array_equal(state.physics.qpos, reference.step(data, np.zeros(8)).qpos)


# --- actions ---------------------------------------------------------------------------------


def recording(partition=PARTITIONS["ant_4x2"], limits=None, action_order="node"):
    body = robot("ant", "lorasa")
    model = load_model(body)
    if limits is not None:
        model.actuator_ctrlrange[:] = limits
    return MultiAgentMujoco(body, partition, Recorder(), model, action_order=action_order)


def driven(env, actions):
    """The controls that reach the stepper."""
    state, _ = env.set_physics(*standing())
    state, _ = env.step(KEY, state, jnp.asarray(actions, float))
    return np.asarray(state.physics.qvel[: actions.size])


@pytest.mark.parametrize("agent", range(4))
def test_an_agent_moves_its_own_leg(reference, agent):
    """`node`: agent i drives hip_(i+1) and ankle_(i+1), and nothing else."""
    actions = np.zeros((4, 2))
    actions[agent] = 1.0, 0.5
    ctrl = driven(recording(), actions)
    expected = joint_controls(reference.model, PARTITIONS["ant_4x2"], actions)
    np.testing.assert_array_equal(ctrl, expected)
    hip = (2, 4, 6, 0)[agent]
    np.testing.assert_array_equal(ctrl[[hip, hip + 1]], [1.0, 0.5])


@pytest.mark.parametrize("agent, leg", [(0, 4), (1, 1), (2, 2), (3, 3)])
def test_flat_order_moves_another_leg(reference, agent, leg):
    actions, by_leg = np.zeros((4, 2)), np.zeros((4, 2))
    actions[agent] = by_leg[leg - 1] = 1.0, 0.5
    ctrl = driven(recording(action_order="flat"), actions)
    np.testing.assert_array_equal(ctrl, actions.reshape(-1))
    expected = joint_controls(reference.model, PARTITIONS["ant_4x2"], by_leg)
    np.testing.assert_array_equal(ctrl, expected)


def test_action_order_reaches_the_engine(x64, touching):
    """The real robot: a flat action is the node action of the agents rolled by one."""
    actions = np.random.default_rng(3).uniform(-1, 1, (4, 2))
    after = []
    for order, given in (("flat", actions), ("node", np.roll(actions, -1, axis=0))):
        env = make(action_order=order)
        state, _ = env.set_physics(touching.qpos[0], touching.qvel[0])
        after.append(env.step(KEY, state, given)[0].physics)
    assert isinstance(after[0], PhysState)
    jax.tree.map(np.testing.assert_array_equal, *after)


def test_actions_span_the_actuators_range(x64):
    actions = np.linspace(-1, 1, 8).reshape(4, 2)
    rolled = np.roll(actions.reshape(-1), 2)
    for limits, expected in (((-0.4, 0.4), 0.4 * rolled), ((0.0, 2.0), 1.0 + rolled)):
        ctrl = driven(recording(limits=limits), actions)
        np.testing.assert_allclose(ctrl, expected, rtol=0, atol=1e-15)


def test_padded_actions_go_nowhere():
    """One agent with two joints beside agents with one: the legal mask says so, ctrl has no gap."""
    alone = [(f"{part}_{leg}",) for leg in (1, 2, 3) for part in ("hip", "ankle")]
    env = recording(partition=Partition("ant", (("hip_4", "ankle_4"), *alone)))
    _, timestep = env.set_physics(*standing())
    np.testing.assert_array_equal(timestep.legal, [[True, True]] + [[True, False]] * 6)
    actions = np.c_[np.arange(1.0, 8) / 10, np.full(7, -1.0)]
    actions[0, 1] = 0.9
    state, _ = env.set_physics(*standing())
    state, _ = env.step(KEY, state, jnp.asarray(actions))
    expected = [0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    np.testing.assert_allclose(state.physics.qvel[:8], expected, rtol=1e-6)


def test_the_humanoids_second_agent_has_eight_joints(x64):
    """Its ninth action is not legal and moves nothing; the others reach 0.4."""
    env, after = make("humanoid_9_8"), []
    state, timestep = env.set_physics(*pose(env))
    np.testing.assert_array_equal(timestep.legal.sum(1), [9, 8])
    assert not timestep.legal[1, 8]
    for ninth in (-1.0, 1.0):
        actions = np.full((2, 9), 1.0)
        actions[1, 8] = ninth
        after.append(env.step(KEY, state, actions)[0])
    jax.tree.map(np.testing.assert_array_equal, *after)
    loop = loop_of("humanoid")
    data = loop.data(*pose(env))
    np.testing.assert_array_equal(after[0].physics.qpos, loop.step(data, np.full(17, 0.4)).qpos)


def test_the_state_carries_the_warm_start(x64, touching):
    """MuJoCo's next step depends on it: another warm start, another step within tolerance."""
    env = make("humanoid_9_8")
    states = harvest("humanoid")
    start = pick(states, 3)
    state, _ = env.set_physics(start.qpos, start.qvel, start.warmstart)
    np.testing.assert_array_equal(state.physics.warmstart, start.warmstart)
    cold, _ = env.set_physics(start.qpos, start.qvel)
    np.testing.assert_array_equal(cold.physics.warmstart, 0.0)
    warm, cold = (env.step(KEY, s, zeros(env))[0].physics for s in (state, cold))
    loop = loop_of("humanoid")
    np.testing.assert_array_equal(warm.qpos, loop.step(loop.data(*start), np.zeros(17)).qpos)
    assert np.any(np.asarray(warm.qvel) != np.asarray(cold.qvel))
    assert isinstance(state, RobotState) and mujoco.mjtSolver.mjSOL_PGS == loop.model.opt.solver
