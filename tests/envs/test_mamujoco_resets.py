"""How episodes begin: ranges, moments, unit quaternions, the reacher's target."""

import functools

import jax
import numpy as np
import pytest
from mujoco_loop import PARTITION, PROFILES, ROBOTS, loop_of

from lorasa_jax import envs

KEY = jax.random.key(0)
COUNT = 400
# qpos +-, qvel: +- uniform, or deviation of a normal distribution.
NOISE = {
    "halfcheetah": (0.1, 0.1, "normal"),
    "walker2d": (0.005, 0.005, "uniform"),
    "hopper": (0.005, 0.005, "uniform"),
    "swimmer": (0.1, 0.1, "uniform"),
    "reacher": (0.1, 0.005, "uniform"),
    "ant": (0.1, 0.1, "normal"),
    "humanoid": (0.01, 0.01, "uniform"),
    "humanoid_standup": (0.01, 0.01, "uniform"),
    "manyagent_ant_4": (0.1, 0.1, "normal"),
    "manyagent_swimmer_6": (0.1, 0.1, "uniform"),
}


def make(name, profile="lorasa"):
    return envs.make(PARTITION[name], engine="native", profile=profile, agent_ids=False)


@functools.cache
def resets(name, profile):
    """(RobotState, TimeStep) of COUNT resets, as numpy."""
    env = make(name, profile)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, COUNT)))


def noise_of(name, profile):
    """qpos - rest pose without quaternion and target, qvel without the target's; [reset, entry]."""
    state, _ = resets(name, profile)
    model = loop_of(name, profile).model
    noise = np.asarray(state.physics.qpos, float) - model.qpos0
    qvel = np.asarray(state.physics.qvel, float)
    if name == "reacher":
        return noise[:, :2], qvel[:, :2]
    free = model.jnt_type[0] == 0
    return np.delete(noise, np.s_[3:7] if free and profile == "lorasa" else [], axis=1), qvel


@pytest.mark.sample(2)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_noise(name, profile):
    """Ranges, means and deviations, entry by entry; 5 standard errors throughout."""
    spread, speed, kind = NOISE[name]
    noise, qvel = noise_of(name, profile)
    columns = [(noise, spread)] if kind == "normal" else [(noise, spread), (qvel, speed)]
    for values, limit in columns:
        assert np.abs(values).max() <= limit * 1.0001
        assert (np.ptp(values, axis=0) > 1.9 * limit).all()
        np.testing.assert_allclose(values.mean(0), 0, atol=5 * limit / np.sqrt(3 * COUNT))
        error = 5 * 0.26 * limit / np.sqrt(values.size)
        np.testing.assert_allclose(values.std(), limit / np.sqrt(3), atol=error)
    if kind == "normal":
        np.testing.assert_allclose(qvel.mean(0), 0, atol=5 * speed / np.sqrt(COUNT))
        np.testing.assert_allclose(qvel.std(), speed, atol=5 * speed / np.sqrt(2 * qvel.size))
        beyond = 0.0455  # of a normal distribution lies past two standard deviations
        error = np.sqrt(beyond * (1 - beyond) / qvel.size)
        np.testing.assert_allclose((np.abs(qvel) > 2 * speed).mean(), beyond, atol=5 * error)
    correlation = np.corrcoef(np.c_[noise, qvel].T) - np.eye(noise.shape[1] + qvel.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(COUNT)


@pytest.mark.parametrize("name", ["ant", "humanoid", "humanoid_standup", "manyagent_ant_4"])
def test_quaternions_are_unit_in_profile_lorasa_only(name):
    """MuJoCo 2 normalised them at once; Gymnasium's first observation shows them as drawn."""
    norms = {}
    for profile in PROFILES:
        state, timestep = resets(name, profile)
        norms[profile] = np.linalg.norm(state.physics.qpos[:, 3:7], axis=1)
        np.testing.assert_array_equal(timestep.state[:, 0, 1:5], state.physics.qpos[:, 3:7])
    np.testing.assert_allclose(norms["lorasa"], 1, rtol=0, atol=1e-6)
    assert np.abs(norms["gymnasium"] - 1).max() > 0.5 * NOISE[name][0]


def test_quaternions_keep_the_direction_of_their_noise():
    quaternion = resets("ant", "lorasa")[0].physics.qpos[:, 3:7]
    ratio = quaternion[:, 1:] / quaternion[:, :1]
    assert 0.09 < np.abs(ratio).max() <= 0.1 / 0.9 + 1e-6


@pytest.mark.parametrize("profile", PROFILES)
def test_reachers_target(profile):
    """Uniform on a disc of 0.2 m, at rest."""
    state, _ = resets("reacher", profile)
    target, speed = state.physics.qpos[:, 2:], state.physics.qvel[:, 2:]
    radius = np.linalg.norm(target, axis=1)
    assert 0.19 < radius.max() <= 0.2 * 1.0001
    np.testing.assert_array_equal(speed, 0.0)
    # The square of a uniform point's radius is uniform, and its direction has no mean.
    np.testing.assert_allclose((radius**2 / 0.04).mean(), 0.5, atol=5 * 0.29 / np.sqrt(COUNT))
    np.testing.assert_allclose(target.mean(0), 0, atol=5 * 0.1 / np.sqrt(COUNT))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_a_fresh_episode(name, profile):
    """No reward, no clock, no warm start, nothing ended; the state shows the robot as it is."""
    state, timestep = resets(name, profile)
    assert not (np.any(state.physics.warmstart) or np.any(state.steps) or np.any(timestep.reward))
    assert not (np.any(timestep.terminated) or np.any(timestep.truncated))
    assert timestep.active.all() and np.isfinite(timestep.obs).all()
    if name.startswith(("ant", "manyagent_ant", "halfcheetah", "walker2d", "hopper")):
        np.testing.assert_array_equal(state.measure, state.physics.qpos[:, 0])
    hidden = {"reacher": None, "swimmer": 2, "manyagent_swimmer_6": 2}.get(
        name, 2 if loop_of(name).model.jnt_type[0] == 0 else 1
    )
    if hidden is not None:
        shown = state.physics.qpos[:, hidden:]
        np.testing.assert_array_equal(timestep.state[:, 0, : shown.shape[1]], shown)


@pytest.mark.parametrize("name", ["humanoid", "reacher"])
def test_what_a_fresh_state_derives(x64, name):
    """Humanoid's inertias and reacher's tip are those of the injected state, as in mj_forward."""
    env, loop = make(name), loop_of(name)
    qpos = loop.model.qpos0 + np.random.default_rng(0).uniform(-0.1, 0.1, loop.model.nq)
    qvel = np.random.default_rng(1).normal(size=loop.model.nv)
    state, timestep = env.set_physics(qpos, qvel)
    data = loop.at_rest(qpos, qvel)
    if name == "humanoid":
        place = loop.model.body_mass @ data.xipos[:, 0] / loop.model.body_mass.sum()
        parts = qpos[2:], qvel, data.cinert, data.cvel, data.qfrc_actuator, np.zeros(84)
        expected = np.concatenate([np.ravel(part) for part in parts])
    else:
        tip = data.body("fingertip").xpos - data.body("target").xpos
        place = np.linalg.norm(tip)
        expected = np.r_[np.cos(qpos[:2]), np.sin(qpos[:2]), qpos[2:], qvel[:2], tip]
    np.testing.assert_allclose(state.measure, place, rtol=0, atol=1e-14)
    np.testing.assert_allclose(timestep.state[0], expected, rtol=0, atol=1e-14)


def test_set_physics_injects_exactly(x64, touching):
    env = make("ant")
    state, timestep = env.set_physics(touching.qpos[7], touching.qvel[7])
    np.testing.assert_array_equal(state.physics.qpos, touching.qpos[7])
    np.testing.assert_array_equal(state.physics.qvel, touching.qvel[7])
    np.testing.assert_array_equal(state.physics.warmstart, np.zeros(14))
    assert state.measure == touching.qpos[7, 0]
    assert (state.steps, timestep.reward) == (0, 0.0)
    assert not timestep.terminated and not timestep.truncated
    np.testing.assert_array_equal(timestep.state[0, :13], touching.qpos[7, 2:])
