"""What a stepper is, the state it advances, and the models both engines load."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple, Protocol

import gymnasium
import jax
import jax.numpy as jnp
import mujoco

from lorasa_jax.envs.mamujoco.robots import Robot
from lorasa_jax.errors import ConfigError


class PhysState(NamedTuple):
    """One robot's physics: qpos [nq], qvel [nv], and the solver's warm start [nv]."""

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array


class Stepper(Protocol):
    """One robot's physics engine; pure, so it may be vmapped, scanned, jitted.

    `derived` are MuJoCo's own fields by name, in their own shapes, such as xpos [body, 3]. After
    a step they are those of its last internal evaluation, as MuJoCo leaves them, not of the
    returned qpos: the rewards of Gym's tasks use them so. `forward` gives those of a state at
    rest; contact forces are zeros there. name is the engine's, as `env.engine` spells it.
    """

    name: str

    def step(
        self, physics: PhysState, ctrl: jax.Array
    ) -> tuple[PhysState, dict[str, jax.Array]]: ...

    def forward(self, physics: PhysState) -> dict[str, jax.Array]: ...


def at_rest(qpos: jax.Array, qvel: jax.Array) -> PhysState:
    """The state a simulation starts from: no warm start."""
    return PhysState(qpos, qvel, jnp.zeros_like(qvel))


def derived_shapes(model: mujoco.MjModel, fields: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of derived fields, as MuJoCo holds them."""
    data = mujoco.MjData(model)
    return {name: getattr(data, name).shape for name in fields}


def load_model(robot: Robot) -> mujoco.MjModel:
    """The robot's model; under profile `lorasa` with the contacts of MuJoCo 2.x.

    From 3.5 on MuJoCo adds the margins of two geoms in contact, where it took the larger one
    before; all margins of a model are equal, so that half of each gives the old contacts back.

    Raises:
      ConfigError: the installed gymnasium carries another model file, or none.
    """
    if robot.build is not None:
        model = robot.build()
    else:
        path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / robot.xml
        if not path.exists():
            raise ConfigError(
                f"the installed gymnasium has no {robot.xml}; install the versions in "
                "constraints.txt."
            )
        text = path.read_bytes()
        if not hashlib.sha256(text).hexdigest().startswith(robot.sha256):
            raise ConfigError(
                f"{robot.xml} in the installed gymnasium is not the file these tasks were checked "
                "with; install the versions in constraints.txt."
            )
        model = _compile(text.decode())
    if robot.halve_margins:
        model.geom_margin *= 0.5
    return model


def _compile(text):
    """The model of an XML text; a deprecated attribute is applied afterwards, as MuJoCo advises."""
    mass = re.search(r'\s+settotalmass="([^"]+)"', text)
    if mass is None:
        return mujoco.MjModel.from_xml_string(text)
    model = mujoco.MjModel.from_xml_string(text.replace(mass.group(0), ""))
    mujoco.mj_setTotalmass(model, float(mass.group(1)))
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
