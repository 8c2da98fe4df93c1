"""The task around the physics: reward, health, clock, resets, and what an action moves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco.environment import MultiAgentMujoco
from lorasa_jax.envs.mamujoco.partitions import PARTITIONS, Partition
from lorasa_jax.envs.mamujoco.physics import PhysState
from lorasa_jax.envs.mamujoco.robots import ANT

KEY = jax.random.key(0)


class Frozen(NamedTuple):
    """A stepper that moves nothing but the torso, by `speed` x 0.05 m."""

    speed: float = 0.0

    def step(self, physics, ctrl):
        return physics._replace(torso_x=physics.torso_x + 0.05 * self.speed)


class Recorder(NamedTuple):
    """A stepper that writes its controls into qvel."""

    def step(self, physics, ctrl):
        return physics._replace(qvel=physics.qvel.at[: len(ctrl)].set(ctrl))


def task(stepper, *, partition=PARTITIONS["ant_4x2"], limits=(-1.0, 1.0), action_order="node"):
    return MultiAgentMujoco(
        partition,
        stepper,
        dt=0.05,
        qpos0=np.r_[0.0, 0.0, 0.75, 1.0, np.zeros(11)],
        ctrl_range=np.tile(limits, (sum(map(len, partition.agents)), 1)),
        action_order=action_order,
    )


def standing(height=0.5):
    return np.r_[0.0, 0.0, height, 1.0, np.zeros(11)], np.zeros(14)


def joint_controls(model, actions):
    """actions [agent, (hip, ankle)] by actuator, from the model's joint names."""
    wanted = {}
    for leg, (hip, ankle) in enumerate(actions, start=1):
        wanted |= {f"hip_{leg}": hip, f"ankle_{leg}": ankle}
    return np.array([wanted[model.joint(model.actuator(i).trnid[0]).name] for i in range(model.nu)])


def test_reward_and_end_against_the_loop(x64, reference, touching):
    """20 steps from 15 states, some falling or flipped: every reward, flag and observation."""
    env = envs.make("ant_4x2", engine="native", agent_ids=False)
    rng = np.random.default_rng(2)
    starts = jax.tree.map(lambda x: x[::4], touching)
    actions = rng.uniform(-1, 1, (20, 15, 4, 2))
    state, _ = jax.vmap(env.set_physics)(starts.qpos, starts.qvel)
    step = jax.jit(jax.vmap(env.step, in_axes=(None, 0, 0)))
    loops = [reference.data(*row) for row in zip(starts.qpos, starts.qvel, strict=True)]
    before, ended = starts.qpos[:, 0], []
    for t in range(20):
        state, timestep = step(KEY, state, actions[t])
        ctrls = [joint_controls(reference.model, a) for a in actions[t]]
        after = [reference.step(data, ctrl) for data, ctrl in zip(loops, ctrls, strict=True)]
        x = np.array([physics.torso_x for physics in after])
        reward = (x - before) / 0.05 + 1.0 - 0.5 * np.square(ctrls).sum(1)
        np.testing.assert_allclose(timestep.reward, reward, rtol=0, atol=1e-12)
        heights = np.array([physics.qpos[2] for physics in after])
        np.testing.assert_array_equal(timestep.terminated, (heights < 0.2) | (heights > 1.0))
        qpos, qvel = (np.stack([physics[i] for physics in after]) for i in (0, 1))
        np.testing.assert_array_equal(timestep.state[:, 0, :27], np.c_[qpos[:, 2:], qvel])
        np.testing.assert_array_equal(timestep.obs[:, 2, 0], qpos[:, 12])
        before = x
        ended.append(np.asarray(timestep.terminated))
    assert 0 < np.mean(ended) < 1


def test_forward_reward_lags(x64, reference, touching):
    """The torso's place is that of the last internal evaluation: the returned qpos would be off."""
    rows = zip(touching.qpos, touching.qvel, strict=True)
    after = [reference.step(reference.data(*row), np.zeros(8)) for row in rows]
    assert max(abs(physics.torso_x - physics.qpos[0]) for physics in after) > 1e-4


@pytest.mark.parametrize(
    "height, ends",
    [
        (0.2, False),
        (np.nextafter(0.2, 0), True),
        (1.0, False),
        (np.nextafter(1.0, 2), True),
        (0.6, False),
        (-1.0, True),
        (np.nan, True),
        (np.inf, True),
    ],
)
def test_healthy_heights(x64, height, ends):
    """The bounds themselves are healthy."""
    env = task(Frozen())
    state, timestep = env.set_physics(*standing(height))
    assert not timestep.terminated
    _, timestep = env.step(KEY, state, np.zeros((4, 2)))
    assert timestep.terminated == ends and not timestep.truncated


@pytest.mark.parametrize("field, entry", [(0, 0), (0, 14), (1, 0), (1, 13)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_physics_ends_the_episode(field, entry, value):
    env = task(Frozen())
    injected = standing()
    injected[field][entry] = value
    state, _ = env.set_physics(*injected)
    assert env.step(KEY, state, np.zeros((4, 2)))[1].terminated


@pytest.mark.parametrize("spoilt", ["qpos", "qvel", "action"])
def test_non_finite_input_ends_the_episode_in_the_c_engine(spoilt, tmp_path, monkeypatch):
    """MuJoCo must not put the robot back to its feet unseen; its neighbour is unharmed."""
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings
    env = envs.make("ant_4x2", engine="native")
    qpos, qvel = (np.stack([x, x]) for x in standing())
    actions = np.zeros((2, 4, 2))
    {"qpos": qpos, "qvel": qvel, "action": actions.reshape(2, 8)}[spoilt][0, 7] = np.nan
    state, _ = jax.vmap(env.set_physics)(qpos, qvel)
    _, timestep = jax.vmap(env.step, in_axes=(None, 0, 0))(KEY, state, actions)
    np.testing.assert_array_equal(timestep.terminated, [True, False])
    assert np.isfinite(timestep.reward[1]) and np.isfinite(timestep.obs[1]).all()


@pytest.mark.parametrize("height", [0.5, 0.1])
def test_reward_terms(x64, height):
    """velocity + 1 - 0.5 sum of squares, on the terminating step (0.1 m) as on any other."""
    env = task(Frozen(speed=3.0))
    state, _ = env.set_physics(*standing(height))
    _, timestep = env.step(KEY, state, np.full((4, 2), 0.5))
    np.testing.assert_allclose(timestep.reward, 3.0 + 1.0 - 0.5 * 8 * 0.25, rtol=0, atol=1e-12)


def test_truncation_at_the_thousandth_step_only():
    env = task(Frozen())
    state, _ = env.set_physics(*standing())

    def step(state, _):
        state, timestep = env.step(KEY, state, jnp.zeros((4, 2)))
        return state, (timestep.truncated, timestep.terminated)

    truncated, terminated = jax.lax.scan(step, state, length=1000)[1]
    np.testing.assert_array_equal(truncated, np.arange(1, 1001) == 1000)
    assert not terminated.any()


def test_truncation_of_the_real_robot():
    env = envs.make("ant_4x2", engine="native")
    (physics, steps), _ = env.reset(KEY)
    state = (physics, jnp.full_like(steps, 998))
    state, timestep = env.step(KEY, state, jnp.zeros((4, 2)))
    assert not timestep.truncated
    _, timestep = env.step(KEY, state, jnp.zeros((4, 2)))
    assert timestep.truncated and not timestep.terminated


def test_step_does_not_reset(x64, reference):
    """A fallen robot falls on, a clock that has run out runs on."""
    env = envs.make("ant_4x2", engine="native")
    qpos, qvel = standing(5.0)
    (physics, _), _ = env.set_physics(qpos, qvel)
    data = reference.data(qpos, qvel)
    state = (physics, jnp.asarray(999, jnp.int32))
    for clock in (1000, 1001):
        state, timestep = env.step(KEY, state, np.zeros((4, 2)))
        assert timestep.terminated and timestep.truncated
        assert state[1] == clock
        np.testing.assert_array_equal(state[0].qpos, reference.step(data, np.zeros(8)).qpos)


def test_set_physics_injects_exactly(x64, touching):
    env = envs.make("ant_4x2", engine="native")
    (physics, steps), timestep = env.set_physics(touching.qpos[7], touching.qvel[7])
    np.testing.assert_array_equal(physics.qpos, touching.qpos[7])
    np.testing.assert_array_equal(physics.qvel, touching.qvel[7])
    np.testing.assert_array_equal(physics.warmstart, np.zeros(14))
    assert physics.torso_x == touching.qpos[7, 0]
    assert (steps, timestep.reward) == (0, 0.0)
    assert not timestep.terminated and not timestep.truncated
    np.testing.assert_array_equal(timestep.state[0, :13], touching.qpos[7, 2:])


def test_reset_noise(reference):
    """2000 resets: qpos +-0.1 uniform, qvel 0.1 N(0, 1); 4 standard errors throughout."""
    env = envs.make("ant_4x2", engine="native", agent_ids=False)
    (physics, steps), timestep = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 2000))
    qpos, qvel = np.asarray(physics.qpos, float), np.asarray(physics.qvel, float)

    quaternion = qpos[:, 3:7]
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1, rtol=0, atol=1e-6)
    ratio = quaternion[:, 1:] / quaternion[:, :1]
    assert 0.09 < np.abs(ratio).max() <= 0.1 / 0.9 + 1e-6

    noise = np.delete(qpos - reference.model.qpos0, np.s_[3:7], axis=1)
    assert np.abs(noise).max() <= 0.1 + 1e-6
    assert (np.ptp(noise, axis=0) > 0.198).all()
    np.testing.assert_allclose(noise.mean(0), 0, atol=4 * 0.1 / np.sqrt(3 * 2000))
    np.testing.assert_allclose(noise.std(), 0.1 / np.sqrt(3), atol=4 * 0.026 / np.sqrt(noise.size))

    np.testing.assert_allclose(qvel.mean(0), 0, atol=4 * 0.1 / np.sqrt(2000))
    np.testing.assert_allclose(qvel.std(), 0.1, atol=4 * 0.1 / np.sqrt(2 * qvel.size))
    beyond = 0.0455  # of a normal distribution lies past two standard deviations
    error = np.sqrt(beyond * (1 - beyond) / qvel.size)
    np.testing.assert_allclose((np.abs(qvel) > 0.2).mean(), beyond, atol=4 * error)
    correlation = np.corrcoef(np.c_[noise, qvel].T) - np.eye(25)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)

    np.testing.assert_array_equal(physics.torso_x, physics.qpos[:, 0])
    assert not (np.any(physics.warmstart) or np.any(steps) or np.any(timestep.reward))
    assert not (np.any(timestep.terminated) or np.any(timestep.truncated))


def driven(env, actions):
    """The controls that reach the stepper."""
    state, _ = env.set_physics(*standing())
    (physics, _), _ = env.step(KEY, state, jnp.asarray(actions, float))
    return np.asarray(physics.qvel[: actions.size])


@pytest.mark.parametrize("agent", range(4))
def test_an_agent_moves_its_own_leg(reference, agent):
    """`node`: agent i drives hip_(i+1) and ankle_(i+1), and nothing else."""
    actions = np.zeros((4, 2))
    actions[agent] = 1.0, 0.5
    ctrl = driven(task(Recorder()), actions)
    np.testing.assert_array_equal(ctrl, joint_controls(reference.model, actions))
    hip = (2, 4, 6, 0)[agent]
    np.testing.assert_array_equal(ctrl[[hip, hip + 1]], [1.0, 0.5])


@pytest.mark.parametrize("agent, leg", [(0, 4), (1, 1), (2, 2), (3, 3)])
def test_flat_order_moves_another_leg(reference, agent, leg):
    actions, by_leg = np.zeros((4, 2)), np.zeros((4, 2))
    actions[agent] = by_leg[leg - 1] = 1.0, 0.5
    ctrl = driven(task(Recorder(), action_order="flat"), actions)
    np.testing.assert_array_equal(ctrl, actions.reshape(-1))
    np.testing.assert_array_equal(ctrl, joint_controls(reference.model, by_leg))


def test_action_order_reaches_the_engine(x64, touching):
    """The real robot: a flat action is the node action of the agents rolled by one."""
    actions = np.random.default_rng(3).uniform(-1, 1, (4, 2))
    after = []
    for order, given in (("flat", actions), ("node", np.roll(actions, -1, axis=0))):
        env = envs.make("ant_4x2", engine="native", action_order=order)
        state, _ = env.set_physics(touching.qpos[0], touching.qvel[0])
        after.append(env.step(KEY, state, given)[0][0])
    assert isinstance(after[0], PhysState)
    jax.tree.map(np.testing.assert_array_equal, *after)


def test_actions_span_the_actuators_range(x64):
    actions = np.linspace(-1, 1, 8).reshape(4, 2)
    rolled = np.roll(actions.reshape(-1), 2)
    for limits, expected in (((-0.4, 0.4), 0.4 * rolled), ((0.0, 2.0), 1.0 + rolled)):
        ctrl = driven(task(Recorder(), limits=limits), actions)
        np.testing.assert_allclose(ctrl, expected, rtol=0, atol=1e-15)


def test_padded_actions_go_nowhere():
    """One agent with two joints beside agents with one: the legal mask says so, ctrl has no gap."""
    alone = [(f"{part}_{leg}",) for leg in (1, 2, 3) for part in ("hip", "ankle")]
    partition = Partition(ANT, (("hip_4", "ankle_4"), *alone))
    env = task(Recorder(), partition=partition)
    _, timestep = env.set_physics(*standing())
    np.testing.assert_array_equal(timestep.legal, [[True, True]] + [[True, False]] * 6)
    actions = np.c_[np.arange(1.0, 8) / 10, np.full(7, -1.0)]
    actions[0, 1] = 0.9
    state, _ = env.set_physics(*standing())
    (physics, _), _ = env.step(KEY, state, jnp.asarray(actions))
    expected = [0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    np.testing.assert_allclose(physics.qvel[:8], expected, rtol=1e-6)
