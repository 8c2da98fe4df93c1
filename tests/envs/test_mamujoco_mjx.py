"""MJX against the C engine, one environment step in float64, and the contacts that we mend."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco.mjx._src import collision_primitive
from mujoco_loop import PARTITION, PROFILES, ROBOTS, harvest, loop_of, pick

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import mjx
from lorasa_jax.envs.mamujoco.environment import RobotState, derived_fields
from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.envs.mamujoco.physics import load_model
from lorasa_jax.envs.mamujoco.robots import robot
from lorasa_jax.errors import ConfigError

pytestmark = pytest.mark.upstream

SLOW_STATES = 1000


def engines(name, profile):
    """(native, mjx) environments; where MJX solves with Newton instead of PGS, both do."""
    both = [
        envs.make(PARTITION[name], engine=engine, profile=profile, agent_ids=False)
        for engine in ("native", "mjx")
    ]
    body, model = robot(name, profile), load_model(robot(name, profile))
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    both[0].stepper = NativeStepper(model, body.frame_skip, derived_fields(body))
    return both


def one_step(name, profile, count):
    """(RobotState, TimeStep) of native and of MJX after a step from harvested states; torques."""
    states = harvest(name, profile, count)
    after = []
    for env in engines(name, profile):
        shape = (count, env.num_agents, env.action_space.size)
        actions = np.random.default_rng(1).uniform(-1, 1, shape)
        state = RobotState(states, states.qpos[:, 0], np.zeros(count, np.int32))
        step = jax.jit(jax.vmap(lambda state, actions, env=env: env.step(None, state, actions)))
        after.append(jax.tree.map(np.asarray, step(state, actions)))
    legal = env.action_index >= 0
    ctrl = np.empty((count, env.model.nu))
    ctrl[:, env.action_index[legal]] = actions[:, legal]
    return *after, ctrl * env.model.actuator_ctrlrange[:, 1]


def touches_itself(loop, physics, ctrl):
    """Whether two limbs touch at any physics step of an environment step."""
    data, touched = loop.data(*physics), False
    data.ctrl = ctrl
    for _ in range(loop.frame_skip):
        mujoco.mj_step(loop.model, data)
        touched |= any(loop.model.geom_bodyid[geom] for geom in data.contact.geom1[: data.ncon])
    return touched


def assert_engines_agree(name, profile, after, outliers=0.0):
    """To 1e-10 (qpos) and 1e-9 (qvel); the humanoids to 1e-6 and 1e-4.

    The humanoids' solver stops at a tolerance, which contacts amplify. A share of `outliers` may
    differ by more, but not in their ending.
    """
    (native, told), (ours, seen), ctrl = after
    assert ours.physics.qpos.dtype == np.float64
    rough = np.full(len(ctrl), "humanoid" in name)

    def gap(one, other):
        return np.abs(one - other).reshape(len(ctrl), -1).max(1)

    def assert_within(gaps, bounds, what):
        beyond = gaps > bounds
        assert beyond.mean() <= outliers, (what, np.flatnonzero(beyond), gaps[beyond])

    qpos, qvel = np.where(rough, 1e-6, 1e-10), np.where(rough, 1e-4, 1e-9)
    assert_within(gap(ours.physics.qpos, native.physics.qpos), qpos, "qpos")
    assert_within(gap(ours.physics.qvel, native.physics.qvel), qvel, "qvel")
    assert_within(gap(ours.measure, native.measure), qpos, "measure")
    np.testing.assert_array_equal(seen.terminated, told.terminated)
    # Contact forces, and standing up's height over a physics step, count in hundreds.
    for field, bounds in (("reward", 100 * qpos), ("obs", 10 * qvel), ("state", 10 * qvel)):
        values = getattr(told, field)
        scale = np.maximum(1.0, np.abs(values))
        assert_within(gap(getattr(seen, field) / scale, values / scale), bounds, field)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ant", "hopper", "halfcheetah"])
def test_mjx_equals_native(x64, name):
    assert_engines_agree(name, "lorasa", one_step(name, "lorasa", 60))


def test_hoppers_limbs_touch_each_other():
    """So that the test above covers contacts between capsules."""
    loop, start = loop_of("hopper", "lorasa"), harvest("hopper", "lorasa", 60)
    assert any(touches_itself(loop, pick(start, i), np.zeros(3)) for i in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_mjx_equals_native_in_a_thousand_states(x64, name, profile):
    # In two or three dimensions of contact the C engine itself moves by more than the bound where
    # its solver's tolerance goes to zero: of a thousand ants, one by 3e-7.
    outliers = 0.005 if name.startswith(("ant", "humanoid")) else 0.0
    assert_engines_agree(name, profile, one_step(name, profile, SLOW_STATES), outliers)


@pytest.mark.parametrize("name", ROBOTS)
def test_mjx_keeps_the_models_integrator_and_solves_exactly(name):
    env = engines(name, "lorasa")[1]
    option, wanted = env.stepper._model.opt, load_model(env.robot).opt
    assert int(option.iterations) == 8 and int(option.ls_iterations) == 16
    assert int(option.solver) == mujoco.mjtSolver.mjSOL_NEWTON
    assert int(option.integrator) == wanted.integrator
    assert float(option.timestep) == pytest.approx(wanted.timestep)


needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="needs the package warp; a CPU will do"
)


@needs_warp
@pytest.mark.parametrize("name", ROBOTS)
def test_warp_equals_native_in_single_precision(name, monkeypatch):
    count = 64
    states = harvest(name, "lorasa", count)
    after = []
    for engine in ("native", "warp"):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")  # refused on CPU, where it is slow
            env = envs.make(PARTITION[name], engine=engine, agent_ids=False)
        shape = (count, env.num_agents, env.action_space.size)
        actions = np.random.default_rng(1).uniform(-1, 1, shape)
        state = RobotState(states, states.qpos[:, 0], np.zeros(count, np.int32))
        step = jax.jit(jax.vmap(lambda state, actions, env=env: env.step(None, state, actions)))
        after.append(step(state, actions)[0].physics.qpos)
    # Contacts amplify single precision: nearly all states agree closely.
    gap = np.abs(after[0] - after[1]).max(1)
    assert np.quantile(gap, 0.9) < 1e-5


@needs_warp
def test_warps_plane_and_capsule_are_the_c_engines(monkeypatch):
    """A tangent along a steep capsule's axis, where MuJoCo Warp's own still jumps."""
    import warp as wp
    from mujoco.mjx.third_party.mujoco_warp._src import collision_primitive_core

    from lorasa_jax.envs.mamujoco import warp_contacts

    axis = np.array([0.28, 0.0, 0.96])

    def tangent(function):
        @wp.kernel(module="unique")
        def contact(axis: wp.vec3, frames: wp.array(dtype=wp.mat33)):
            origin, up = wp.vec3(0.0, 0.0, 0.0), wp.vec3(0.0, 0.0, 1.0)
            _distances, _places, frame = function(up, origin, origin, axis, 0.1, 0.3)
            frames[0] = frame

        frames = wp.zeros(1, dtype=wp.mat33, device="cpu")
        wp.launch(contact, 1, [wp.vec3(*axis), frames], device="cpu")
        return frames.numpy()[0, 1]

    np.testing.assert_allclose(tangent(warp_contacts.plane_capsule), [1, 0, 0], atol=1e-6)
    upstream = tangent(collision_primitive_core.plane_capsule)
    assert not np.allclose(upstream, [1, 0, 0], atol=1e-6), "mended upstream: drop warp_contacts"


def test_other_colliders_are_refused(monkeypatch):
    monkeypatch.setattr(mjx.collision_driver, "_COLLISION_FUNC", {})
    with pytest.raises(ConfigError, match="keeps its colliders elsewhere"):
        mjx._mend_collisions()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, profile", [("humanoid", "lorasa"), ("ant", "gymnasium"), ("reacher", "lorasa")]
)
def test_mjx_forward_equals_native(x64, name, profile):
    """The derived fields of a state at rest, which resets look at."""
    states = harvest(name, profile)
    native, ours = (
        jax.jit(jax.vmap(env.stepper.forward))(states) for env in engines(name, profile)
    )
    for field, values in native.items():
        np.testing.assert_allclose(ours[field], values, rtol=1e-10, atol=1e-10, err_msg=field)
    assert native


def capsule_on_plane(tilt, azimuth):
    """The C engine's scene: a capsule tilted from the vertical, sunk into the floor."""
    axis = [np.sin(tilt) * np.cos(azimuth), np.sin(tilt) * np.sin(azimuth), np.cos(tilt)]
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody>
          <geom type="plane" size="1 1 1"/>
          <body pos="0.1 0.2 0.03"><freejoint/>
            <geom type="capsule" size="0.05 0.1" zaxis="{axis[0]} {axis[1]} {axis[2]}"/>
          </body></worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def collide(collider, model, data):
    """An MJX collider's (distance, position, frame) for the scene, deepest contact first."""
    dist, pos, frame = collider(
        SimpleNamespace(geom_size=jnp.array(model.geom_size)),
        SimpleNamespace(
            geom_xpos=jnp.array(data.geom_xpos),
            geom_xmat=jnp.array(data.geom_xmat).reshape(-1, 3, 3),
        ),
        None,
        jnp.array([[0, 1]]),
    )
    order = np.argsort(dist)
    return np.asarray(dist)[order], np.asarray(pos)[order], np.asarray(frame)[order]


@pytest.mark.parametrize("tilt", [0.0, 0.01, 0.3, 0.5, 0.55, 1.2, np.pi / 2, 2.9])
def test_our_capsule_contacts_are_those_of_c(x64, tilt):
    model, data = capsule_on_plane(tilt, azimuth=0.7)
    order = np.argsort(data.contact.dist)
    dist, pos, frame = collide(mjx._plane_capsule, model, data)
    n = len(order)
    assert n >= 1 and (dist[n:] > 0).all()
    np.testing.assert_allclose(dist[:n], data.contact.dist[order], rtol=0, atol=1e-14)
    np.testing.assert_allclose(pos[:n], data.contact.pos[order], rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        frame[:n].reshape(-1, 9), data.contact.frame[order], rtol=0, atol=1e-12
    )


def test_upstream_still_needs_the_mend(x64):
    model, data = capsule_on_plane(tilt=0.3, azimuth=0.7)
    deepest = np.argmin(data.contact.dist)
    _, _, frame = collide(collision_primitive.plane_capsule, model, data)
    gap = np.abs(frame[0].reshape(9) - data.contact.frame[deepest]).max()
    assert gap > 0.1, (
        "MJX's own plane_capsule now has the C engine's frame: "
        "the mend in lorasa_jax/envs/mamujoco/mjx.py can go."
    )


def limbs_that_touch(first, seed):
    """The C engine's scene: a capsule, and a sphere or capsule (`first`) that overlap askew."""
    rng = np.random.default_rng(seed)
    size = "0.06" if first == "sphere" else "0.05 0.12"
    tilt, shift = rng.normal(size=3), rng.uniform(-0.06, 0.06, 3)
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody>
          <body pos="{shift[0]} {shift[1]} {shift[2]}"><freejoint/>
            <geom type="{first}" size="{size}" zaxis="{tilt[0]} {tilt[1]} {tilt[2]}"/></body>
          <body><freejoint/><geom type="capsule" size="0.04 0.1"/></body>
        </worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first", ["sphere", "capsule"])
def test_our_contacts_between_limbs_are_those_of_c(x64, first, seed):
    model, data = limbs_that_touch(first, seed)
    collider = {"sphere": mjx._sphere_capsule, "capsule": mjx._capsule_capsule}[first]
    dist, pos, frame = collide(collider, model, data)
    np.testing.assert_allclose(dist[0], data.contact.dist[0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(pos[0], data.contact.pos[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(frame[0, 0], data.contact.frame[0, :3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", ["sphere", "capsule"])
def test_upstream_still_moves_contacts_between_limbs(x64, first):
    theirs = getattr(collision_primitive, f"{first}_capsule")
    gaps = []
    for seed in range(4):
        model, data = limbs_that_touch(first, seed)
        _, pos, _ = collide(theirs, model, data)
        gaps.append(np.abs(pos[0] - data.contact.pos[0]).max())
    assert max(gaps) > 1e-9, (
        f"MJX's own {first}_capsule is now exact: its mend in lorasa_jax/envs/mamujoco/mjx.py can "
        "go."
    )
