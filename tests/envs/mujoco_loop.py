"""MuJoCo's C engine in a plain Python loop: the reference for everything physical."""

import functools
from typing import NamedTuple

import mujoco
import numpy as np

from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import robot

# One partition of every robot, by robot.
PARTITION = {
    "halfcheetah": "halfcheetah_2x3",
    "walker2d": "walker2d_3x2",
    "hopper": "hopper_3x1",
    "swimmer": "swimmer_2x1",
    "reacher": "reacher_2x1",
    "ant": "ant_4x2",
    "humanoid": "humanoid_9_8",
    "humanoid_standup": "humanoid_standup_9_8",
    "manyagent_ant_4": "manyagent_ant_2x2",
    "manyagent_swimmer_6": "manyagent_swimmer_3x2",
}
ROBOTS = tuple(PARTITION)
PROFILES = ("lorasa", "gymnasium")
_AFLOAT = ("swimmer", "reacher", "manyagent_swimmer_6")  # nothing of theirs touches anything


class Loop(NamedTuple):
    """A robot's model, and a loop over `mj_step`."""

    model: mujoco.MjModel
    frame_skip: int

    @property
    def dt(self):
        return self.model.opt.timestep * self.frame_skip

    def data(self, qpos, qvel, warmstart=0.0):
        data = mujoco.MjData(self.model)
        data.qpos, data.qvel, data.qacc_warmstart = qpos, qvel, warmstart
        return data

    def at_rest(self, qpos, qvel):
        """MjData whose derived fields are those of the state itself."""
        data = self.data(qpos, qvel)
        mujoco.mj_forward(self.model, data)
        return data

    def step(self, data, ctrl):
        data.ctrl = ctrl
        for _ in range(self.frame_skip):
            mujoco.mj_step(self.model, data)
        return self.state(data)

    def state(self, data):
        return PhysState(data.qpos.copy(), data.qvel.copy(), data.qacc_warmstart.copy())

    def rollout(self, physics, ctrls, fields=()):
        """(PhysState, fields) [time, ...] of one robot; MjData lives on from step to step."""
        data, states, derived = self.data(*physics), [], []
        for ctrl in ctrls:
            states.append(self.step(data, ctrl))
            derived.append([getattr(data, name).copy() for name in fields])
        columns = zip(*derived, strict=True)
        derived = {name: np.stack(rows) for name, rows in zip(fields, columns, strict=False)}
        return PhysState(*map(np.stack, zip(*states, strict=True))), derived

    def contacts(self, qpos, qvel):
        return self.at_rest(qpos, qvel).ncon

    def controls(self, *shape, seed=1):
        """Torques over each actuator's range."""
        low, high = self.model.actuator_ctrlrange.T
        return np.random.default_rng(seed).uniform(low, high, (*shape, self.model.nu))


@functools.cache
def loop_of(name: str, profile: str = "lorasa") -> Loop:
    body = robot(name, profile)
    return Loop(load_model(body), body.frame_skip)


def harvest(name: str, profile: str = "lorasa", count: int = 60) -> PhysState:
    """A copy of harvested states, the caller's own, so that no test can change another's."""
    return PhysState(*(x.copy() for x in _harvest(name, profile, count)))


@functools.cache
def _harvest(name: str, profile: str, count: int) -> PhysState:
    """PhysState [count, ...]: float64 states out of random play, in contact where there is any.

    Every other robot begins in a random attitude, so that torsos and upper legs touch too.
    """
    loop, rng, states = loop_of(name, profile), np.random.default_rng(0), []
    model, afloat = loop.model, name in _AFLOAT
    low, high = model.actuator_ctrlrange.T
    while len(states) < count:
        qpos = model.qpos0 + rng.uniform(-1, 1, model.nq) * (1.0 if afloat else 0.1)
        if not afloat and len(states) // 5 % 2:
            if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
                qpos[3:7] = rng.normal(size=4)
            else:
                qpos[1:3] += 0.3, rng.uniform(-np.pi, np.pi)
        data = loop.data(qpos, rng.normal(size=model.nv))
        kept = len(states) + 5
        while len(states) < kept:
            physics = loop.step(data, rng.uniform(low, high))
            if rng.random() < 0.2 and (afloat or loop.contacts(*physics[:2]) > 0):
                states.append(physics)
    return PhysState(*(np.stack(column)[:count] for column in zip(*states, strict=True)))


def pick(tree, rows):
    """The same rows of all arrays of a PhysState."""
    return PhysState(*(x[rows] for x in tree))
