"""What a stepper is, the state it advances, and the models both engines load."""

import hashlib
from pathlib import Path
from typing import NamedTuple, Protocol

import chex
import gymnasium
import jax.numpy as jnp
import mujoco

from lorasa_jax.envs.mamujoco.robots import Robot
from lorasa_jax.errors import ConfigError


class PhysState(NamedTuple):
    """One robot's physics: qpos [nq], qvel [nv], the solver's warm start [nv], torso_x [].

    torso_x (m) is the torso's global position as MuJoCo leaves it in `xpos` after a step: that of
    the last internal evaluation, not of the returned qpos. The reward of Gym's tasks uses it.
    """

    qpos: chex.Array
    qvel: chex.Array
    warmstart: chex.Array
    torso_x: chex.Array


class Stepper(Protocol):
    """Advances one robot by one environment step; pure, so it may be vmapped, scanned, jitted."""

    def step(self, physics: PhysState, ctrl: chex.Array) -> PhysState: ...


def at_rest(qpos: chex.Array, qvel: chex.Array) -> PhysState:
    """The state a simulation starts from: no warm start, the torso where its root joint is."""
    return PhysState(qpos, qvel, jnp.zeros_like(qvel), qpos[0])


def load_model(robot: Robot) -> mujoco.MjModel:
    """The robot of MuJoCo 2.x, which the paper ran.

    From 3.5 on MuJoCo adds the margins of two geoms in contact, where it took the larger one
    before; all margins of a model are equal, so that half of each gives the old contacts back.

    Raises:
      ConfigError: the installed gymnasium carries another model file.
    """
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / robot.xml
    text = path.read_bytes()
    if not hashlib.sha256(text).hexdigest().startswith(robot.sha256):
        raise ConfigError(
            f"{robot.xml} in the installed gymnasium is not the file these tasks were checked "
            "with; install the versions in constraints.txt."
        )
    model = mujoco.MjModel.from_xml_string(text.decode())
    model.geom_margin *= 0.5
    return model
