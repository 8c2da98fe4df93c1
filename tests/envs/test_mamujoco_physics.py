"""Both engines against a loop over MuJoCo's own `mj_step`."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from mujoco.mjx._src import collision_primitive

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import mjx
from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import ANT


@pytest.fixture
def native():
    return NativeStepper(load_model(ANT), ANT.frame_skip, ANT.torso)


def controls(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (*shape, 8))


def pick(physics, rows):
    return jax.tree.map(lambda x: x[rows], physics)


def scan(stepper, physics, ctrls):
    """Open loop over time; PhysState [time, ...]."""

    def step(physics, ctrl):
        physics = stepper.step(physics, ctrl)
        return physics, physics

    return jax.lax.scan(step, physics, ctrls)[1]


def assert_same(one, other):
    """Bit for bit, field by field."""
    for name, a, b in zip(PhysState._fields, one, other, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)


def test_touching_states_are_touching(reference, touching):
    """The harvest is what the tests below rely on."""
    contacts = [reference.contacts(*row) for row in zip(touching.qpos, touching.qvel, strict=True)]
    assert len(contacts) == 60
    assert min(contacts) >= 1 and max(contacts) >= 3
    assert np.abs(touching.qvel).max() > 5
    assert np.abs(touching.warmstart).min(1).max() > 0


def test_native_is_the_loop(x64, native, reference, touching):
    """60 environment steps in one jitted scan; chaos would show a difference of one bit."""
    start = pick(touching, slice(0, 60, 6))
    ctrls = controls(10, 60)
    ours = jax.jit(jax.vmap(lambda physics, ctrls: scan(native, physics, ctrls)))(start, ctrls)
    for i in range(10):
        assert_same(pick(ours, i), reference.rollout(pick(start, i), ctrls[i]))
    assert ours.qpos.dtype == np.float64


def test_nesting_changes_nothing(x64, native, touching):
    """jit + scan + vmap over seeds x environments = the flat batch = one robot at a time."""
    start, ctrls = pick(touching, slice(6)), controls(6, 20)

    def run(physics, ctrls):
        return scan(native, physics, ctrls)

    flat = jax.jit(jax.vmap(run))(start, ctrls)
    grid = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (start, ctrls))
    nested = jax.jit(jax.vmap(jax.vmap(run)))(*grid)
    assert_same(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), nested), flat)
    alone = jax.jit(run)
    for i in range(6):
        assert_same(alone(pick(start, i), ctrls[i]), pick(flat, i))


def test_shared_state_meets_many_controls(x64, native, touching):
    """A vmap over the controls alone gives every robot the same state."""
    start, ctrls = pick(touching, 0), controls(3)
    ours = jax.vmap(native.step, in_axes=(None, 0))(start, ctrls)
    for i in range(3):
        assert_same(pick(ours, i), native.step(start, ctrls[i]))
    assert np.ptp(ours.qvel, axis=0).max() > 0


def test_batches_of_any_size_and_order(x64, native, touching, tmp_path, monkeypatch):
    """Nothing is left over from call to call, not even NaN: rows depend on themselves alone."""
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings
    ctrls = controls(60)
    step = jax.vmap(native.step)
    whole = step(touching, ctrls)
    for size in (7, 60):
        step(jax.tree.map(lambda x, n=size: np.full_like(x[:n], np.nan), touching), ctrls[:size])
    for size, first in ((1, 5), (7, 20), (3, 0), (7, 41), (1, 5)):
        rows = slice(first, first + size)
        assert_same(step(pick(touching, rows), ctrls[rows]), pick(whole, rows))
    backwards = slice(None, None, -1)
    assert_same(step(pick(touching, backwards), ctrls[backwards]), pick(whole, backwards))


def test_float32_is_rounded_once_a_step(native, reference, touching):
    """float32 in and out; between them the engine's own float64."""
    rounded = PhysState(*(x.astype(np.float32) for x in touching))
    ctrls = controls(60).astype(np.float32)
    ours = jax.jit(jax.vmap(native.step))(rounded, ctrls)
    assert {x.dtype for x in ours} == {np.dtype(np.float32)}
    for i in range(60):
        after = pick(reference.rollout(pick(rounded, i), ctrls[i : i + 1]), 0)
        assert_same(pick(ours, i), (x.astype(np.float32) for x in after))


@pytest.fixture(scope="module")
def both_engines(touching):
    """(native, mjx): (PhysState, TimeStep) after one environment step from every touching state."""
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):  # MJX promotes ranks
        actions = controls(60).reshape(60, 4, 2)
        state = (touching, np.zeros(60, np.int32))
        keys = jax.random.split(jax.random.key(0), 60)
        after = []
        for engine in ("native", "mjx"):
            env = envs.make("ant_4x2", engine=engine)
            (physics, _), timestep = jax.jit(jax.vmap(env.step))(keys, state, actions)
            after.append(jax.tree.map(np.asarray, (physics, timestep)))
    return after


def test_mjx_equals_native(both_engines):
    (native, _), (mjx, _) = both_engines
    assert mjx.qpos.dtype == np.float64
    np.testing.assert_allclose(mjx.qpos, native.qpos, rtol=0, atol=1e-10)
    np.testing.assert_allclose(mjx.qvel, native.qvel, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mjx.torso_x, native.torso_x, rtol=0, atol=1e-10)


def test_mjx_task_equals_native(both_engines):
    (_, native), (_, mjx) = both_engines
    np.testing.assert_allclose(mjx.reward, native.reward, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mjx.obs, native.obs, rtol=0, atol=1e-9)
    np.testing.assert_allclose(mjx.state, native.state, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(mjx.terminated, native.terminated)


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
