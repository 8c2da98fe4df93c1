"""Multi-agent MuJoCo: robots, partitions and engines, joined by name."""

import importlib.util

import jax
import numpy as np

from lorasa_jax.envs.mamujoco.partitions import PARTITIONS
from lorasa_jax.errors import ConfigError

NAMES = tuple(PARTITIONS)
OPTIONS = {"engine": "auto", "profile": "lorasa", "action_order": "node"}
_VALUES = {
    "engine": ("auto", "native", "mjx"),
    "profile": ("lorasa",),
    "action_order": ("node", "flat"),
}
_PACKAGES = {"native": "mujoco", "mjx": "mujoco.mjx"}


def make(name: str, *, engine: str, profile: str, action_order: str):
    """Builds the environment `name`; `auto` is the C engine on CPU and MJX on accelerators."""
    chosen = {"engine": engine, "profile": profile, "action_order": action_order}
    for option, value in chosen.items():
        if value not in _VALUES[option]:
            accepted = ", ".join(_VALUES[option])
            raise ConfigError(f"env.{option}={value} is not known; choose one of {accepted}.")
    if engine == "auto":
        engine = "native" if jax.default_backend() == "cpu" else "mjx"
    if not _installed(_PACKAGES[engine]):
        raise ConfigError(
            f"env.engine={engine} needs the package {_PACKAGES[engine].replace('.', '-')}, "
            "which is not installed; install it or choose another engine."
        )
    from lorasa_jax.envs.mamujoco.environment import MultiAgentMujoco
    from lorasa_jax.envs.mamujoco.physics import load_model

    partition = PARTITIONS[name]
    robot = partition.robot
    model = load_model(robot)
    return MultiAgentMujoco(
        partition,
        _stepper(engine, model, robot),
        dt=model.opt.timestep * robot.frame_skip,
        qpos0=np.array(model.qpos0),
        ctrl_range=np.array(model.actuator_ctrlrange),
        action_order=action_order,
    )


def _stepper(engine, model, robot):
    if engine == "mjx":
        from lorasa_jax.envs.mamujoco.mjx import MjxStepper

        return MjxStepper(model, robot.frame_skip, robot.torso)
    from lorasa_jax.envs.mamujoco.native import NativeStepper

    return NativeStepper(model, robot.frame_skip, robot.torso)


def _installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
