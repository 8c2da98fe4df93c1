"""MuJoCo's C engine in a plain Python loop: the reference for everything physical."""

from typing import NamedTuple

import jax
import mujoco
import numpy as np
import pytest

from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import ANT

SUBSTEPS = 5


class Reference(NamedTuple):
    """The Ant's model, and a loop over `mj_step`."""

    model: mujoco.MjModel

    def data(self, qpos, qvel, warmstart=0.0):
        data = mujoco.MjData(self.model)
        data.qpos, data.qvel, data.qacc_warmstart = qpos, qvel, warmstart
        return data

    def step(self, data, ctrl):
        data.ctrl = ctrl
        for _ in range(SUBSTEPS):
            mujoco.mj_step(self.model, data)
        return PhysState(*self.state(data), data.body("torso").xpos[0])

    def state(self, data):
        return data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy()

    def rollout(self, physics, ctrls):
        """PhysState [time, ...] of one robot; MjData lives on from step to step."""
        data = self.data(*physics[:3])
        return PhysState(*map(np.stack, zip(*(self.step(data, c) for c in ctrls), strict=True)))

    def contacts(self, qpos, qvel):
        data = self.data(qpos, qvel)
        mujoco.mj_forward(self.model, data)
        return data.ncon


@pytest.fixture(scope="session")
def reference():
    return Reference(load_model(ANT))


@pytest.fixture(scope="session")
def touching(reference):
    """PhysState [60, ...]: float64 states in contact with the floor, out of random play.

    Every other robot begins in a random attitude, so that torsos and upper legs touch too.
    """
    rng = np.random.default_rng(0)
    states = []
    for robot in range(12):
        qpos = reference.model.qpos0 + rng.uniform(-0.1, 0.1, 15)
        if robot % 2:
            qpos[3:7] = rng.normal(size=4)
        data = reference.data(qpos, rng.normal(size=14))
        kept = len(states) + 5
        while len(states) < kept:
            physics = reference.step(data, rng.uniform(-1, 1, 8))
            if rng.random() < 0.2 and reference.contacts(*physics[:2]) > 0:
                states.append(physics)
    return PhysState(*map(np.stack, zip(*states, strict=True)))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
