"""The C engine inside jit against a loop over MuJoCo's own `mj_step`."""

import jax
import mujoco
import numpy as np
import pytest
from mujoco_loop import ROBOTS, harvest, loop_of, pick

from lorasa_jax import machine
from lorasa_jax.envs.mamujoco.environment import derived_fields
from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import robot

FIELDS = ("cinert", "cvel", "qfrc_actuator", "xipos", "xpos")
WITH_FORCES = ("cfrc_ext", "cvel", "xpos")


def stepper(name="ant", profile="lorasa", fields=(), nthread=0):
    body = robot(name, profile)
    return NativeStepper(load_model(body), body.frame_skip, fields, nthread)


@pytest.fixture(scope="module")
def native():
    return stepper()


def controls(*shape, seed=1):
    return loop_of("ant").controls(*shape, seed=seed)


def scan(stepper, physics, ctrls):
    """Open loop over time; (PhysState, derived) [time, ...]."""

    def step(physics, ctrl):
        after = stepper.step(physics, ctrl)
        return after[0], after

    return jax.lax.scan(step, physics, ctrls)[1]


def assert_same(one, other):
    """Bit for bit, field by field."""
    jax.tree.map(np.testing.assert_array_equal, tuple(one), tuple(other))


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
    ours, _ = jax.jit(jax.vmap(lambda physics, ctrls: scan(native, physics, ctrls)))(start, ctrls)
    for i in range(10):
        assert_same(pick(ours, i), reference.rollout(pick(start, i), ctrls[i])[0])
    assert ours.qpos.dtype == np.float64


@pytest.mark.parametrize("name", ROBOTS)
def test_native_is_the_loop_for_every_robot(x64, name):
    """20 steps from 4 states: the state, and the derived fields as `mj_step` leaves them."""
    loop, native = loop_of(name), stepper(name, fields=FIELDS)
    start, ctrls = pick(harvest(name), slice(0, 60, 15)), loop.controls(4, 20)
    ours = jax.jit(jax.vmap(lambda physics, ctrls: scan(native, physics, ctrls)))(start, ctrls)
    for i in range(4):
        expected = loop.rollout(pick(start, i), ctrls[i], FIELDS)
        assert_same(jax.tree.map(lambda x, i=i: x[i], ours), expected)


@pytest.mark.parametrize("name", ["ant", "humanoid", "humanoid_standup", "manyagent_ant_4"])
def test_contact_forces_are_those_of_the_loop(x64, name):
    """20 steps from 6 states on 2 threads: `mj_step`s, then `mj_rnePostConstraint`."""
    loop, start = loop_of(name, "gymnasium"), pick(harvest(name, "gymnasium"), slice(0, 60, 10))
    native, ctrls = stepper(name, "gymnasium", WITH_FORCES, nthread=2), loop.controls(6, 20)
    ours, derived = jax.jit(jax.vmap(lambda p, c: scan(native, p, c)))(start, ctrls)
    biggest = 0.0
    for i in range(6):
        data = loop.data(*pick(start, i))
        for t, ctrl in enumerate(ctrls[i]):
            after = loop.step(data, ctrl)
            mujoco.mj_rnePostConstraint(loop.model, data)
            assert_same(pick(ours, (i, t)), after)
            for field in WITH_FORCES:
                np.testing.assert_array_equal(derived[field][i, t], getattr(data, field))
            biggest = max(biggest, np.abs(data.cfrc_ext).max())
    assert biggest > 1.0


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_contact_forces_are_zero_at_rest(x64, name):
    """Even after steps in contact; the other fields are those of `mj_forward`."""
    native = stepper(name, "gymnasium", WITH_FORCES)
    loop, states = loop_of(name, "gymnasium"), harvest(name, "gymnasium")
    jax.vmap(native.step)(states, loop.controls(60))
    derived = jax.vmap(native.forward)(states)
    np.testing.assert_array_equal(derived["cfrc_ext"], 0.0)
    for i in range(0, 60, 6):
        data = loop.at_rest(states.qpos[i], states.qvel[i])
        for field in ("cvel", "xpos"):
            np.testing.assert_array_equal(derived[field][i], getattr(data, field))


@pytest.mark.parametrize("name", ROBOTS)
def test_forward_gives_the_fields_of_the_state_itself(x64, name):
    loop, states = loop_of(name), harvest(name)
    fields = derived_fields(robot(name, "lorasa")) or FIELDS
    derived = jax.jit(jax.vmap(stepper(name, fields=fields).forward))(states)
    for i in range(0, 60, 12):
        data = loop.at_rest(states.qpos[i], states.qvel[i])
        for field in fields:
            np.testing.assert_array_equal(derived[field][i], getattr(data, field))


def test_nesting_changes_nothing(x64, native, touching):
    """jit + scan + vmap over seeds x environments = the flat batch = one robot at a time."""
    start, ctrls = pick(touching, slice(6)), controls(6, 20)

    def run(physics, ctrls):
        return scan(native, physics, ctrls)[0]

    flat = jax.jit(jax.vmap(run))(start, ctrls)
    grid = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (start, ctrls))
    nested = jax.jit(jax.vmap(jax.vmap(run)))(*grid)
    assert_same(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), nested), flat)
    alone = jax.jit(run)
    for i in range(6):
        assert_same(alone(pick(start, i), ctrls[i]), pick(flat, i))


def test_derived_fields_keep_their_shapes_under_nesting(x64, touching):
    native = stepper(fields=("xpos", "cvel"))
    grid = jax.tree.map(lambda x: x[:6].reshape(2, 3, *x.shape[1:]), touching)
    _, derived = jax.vmap(jax.vmap(native.step))(grid, controls(2, 3))
    _, alone = native.step(pick(touching, 4), controls(2, 3)[1, 1])
    assert derived["xpos"].shape == (2, 3, 14, 3) and derived["cvel"].shape == (2, 3, 14, 6)
    for field in ("xpos", "cvel"):
        np.testing.assert_array_equal(derived[field][1, 1], alone[field])


def test_shared_state_meets_many_controls(x64, native, touching):
    """A vmap over the controls alone gives every robot the same state."""
    start, ctrls = pick(touching, 0), controls(3)
    ours, _ = jax.vmap(native.step, in_axes=(None, 0))(start, ctrls)
    for i in range(3):
        assert_same(pick(ours, i), native.step(start, ctrls[i])[0])
    assert np.ptp(ours.qvel, axis=0).max() > 0


@pytest.mark.parametrize("profile, fields", [("lorasa", ("xpos",)), ("gymnasium", WITH_FORCES)])
def test_batches_of_any_size_and_order(
    x64, touching, tmp_path, monkeypatch, profile, fields
):  # fmt: skip
    """Nothing is left over from call to call, not even NaN: rows depend on themselves alone."""
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log of its warnings
    ctrls = controls(60)
    step = jax.vmap(stepper("ant", profile, fields).step)
    whole = step(touching, ctrls)
    for size in (7, 60):
        step(jax.tree.map(lambda x, n=size: np.full_like(x[:n], np.nan), touching), ctrls[:size])

    def check(rows):
        expected = jax.tree.map(lambda x: x[rows], whole)
        assert_same(step(pick(touching, rows), ctrls[rows]), expected)

    for size, first in ((1, 5), (7, 20), (3, 0), (7, 41), (1, 5)):
        check(slice(first, first + size))
    check(slice(None, None, -1))


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_float32_is_rounded_once_a_step(name):
    """float32 in and out; between them the engine's own float64."""
    loop, native = loop_of(name), stepper(name, fields=("xpos",))
    rounded = PhysState(*(x.astype(np.float32) for x in harvest(name)))
    ctrls = loop.controls(60).astype(np.float32)
    ours, derived = jax.jit(jax.vmap(native.step))(rounded, ctrls)
    assert {x.dtype for x in (*ours, derived["xpos"])} == {np.dtype(np.float32)}
    for i in range(60):
        after, fields = loop.rollout(pick(rounded, i), ctrls[i : i + 1], ("xpos",))
        assert_same(pick(ours, i), (x.astype(np.float32) for x in pick(after, 0)))
        np.testing.assert_array_equal(derived["xpos"][i], fields["xpos"][0].astype(np.float32))


def test_threads_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 4, 5}, raising=False)
    assert machine.cpus() == 3
    assert machine.name().endswith(", 3 CPUs")
    assert stepper()._nthread == 3 and stepper(nthread=1)._nthread == 1
