"""Profile `lorasa` against MuJoCo 2.2.0: numbers made by mujoco_2_2_0.py."""

from pathlib import Path

import jax
import numpy as np
import pytest

from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import robot

NUMBERS = np.load(Path(__file__).parent / "mujoco_2_2_0.npz")


def one_step(name, profile):
    """Our step from the fixture's states; (qpos, qvel) of both."""
    rows = {
        key: NUMBERS[f"{name}/{key}"]
        for key in ("qpos", "qvel", "warmstart", "ctrl", "next_qpos", "next_qvel")
    }
    body = robot(name, profile)
    stepper = NativeStepper(load_model(body), body.frame_skip)
    physics = PhysState(rows["qpos"], rows["qvel"], rows["warmstart"])
    after, _ = jax.vmap(stepper.step)(physics, rows["ctrl"])
    return after, (rows["next_qpos"], rows["next_qvel"])


@pytest.mark.parametrize("name", ["halfcheetah", "walker2d", "ant"])
def test_lorasa_is_mujoco_2(x64, name):
    """100 contact-rich states, one environment step."""
    after, (qpos, qvel) = one_step(name, "lorasa")
    np.testing.assert_allclose(after.qpos, qpos, rtol=0, atol=1e-12)
    np.testing.assert_allclose(after.qvel, qvel, rtol=0, atol=1e-12)


def test_lorasa_humanoid_is_mujoco_2_to_its_solver_tolerance(x64):
    """PGS stops at a tolerance, and contacts amplify what is left."""
    after, (qpos, qvel) = one_step("humanoid", "lorasa")
    assert np.median(np.abs(after.qvel - qvel)) < 1e-6
    np.testing.assert_allclose(after.qpos, qpos, rtol=0, atol=1e-4)
    np.testing.assert_allclose(after.qvel, qvel, rtol=0, atol=1e-2)


def test_margins_make_the_difference(x64):
    """With the margins as modern MuJoCo adds them, the Ant is another robot."""
    after, (_, qvel) = one_step("ant", "gymnasium")
    assert np.median(np.abs(after.qvel - qvel).max(1)) > 0.01
