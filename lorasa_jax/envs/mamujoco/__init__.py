"""Multi-agent MuJoCo: robots, partitions and engines, joined by name."""

import importlib.util
from dataclasses import dataclass

import jax

from lorasa_jax.envs.mamujoco import partitions
from lorasa_jax.envs.mamujoco.partitions import MANY, PARTITIONS, canonical
from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.values import LARGEST, whole_number

__all__ = ["NAMES", "Keys", "canonical", "make"]

NAMES = (*PARTITIONS, *MANY)
_PACKAGES = {"native": "mujoco", "mjx": "mujoco.mjx", "warp": "mujoco.mjx"}
_CATEGORIES = ("qpos", "qvel")


def _checked_categories(value, label):
    if not isinstance(value, list | tuple) or any(c not in _CATEGORIES for c in value):
        raise ConfigError(f"{label}={value} must be a list of some of {', '.join(_CATEGORIES)}.")
    return list(value)


def _checked_k(value, label):
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{label}={value} must be a whole number.")
    # observations.py knows the range of a robot.
    return whole_number(value, label, least=-LARGEST, most=LARGEST)


@dataclass(frozen=True)
class Keys:
    """What can be chosen of multi-agent MuJoCo."""

    engine: str = key(
        "auto", "who computes physics: MuJoCo's C engine in threads (native), MJX, MJX-Warp (CUDA)",
        choices=("auto", "native", "mjx", "warp"),
    )  # fmt: skip
    profile: str = key(
        "lorasa", "the paper's v2 tasks, or v5 as Gymnasium-Robotics observes them",
        choices=("lorasa", "gymnasium"),
    )  # fmt: skip
    action_order: str = key(
        "node", "an agent drives the joints that it observes, or in agent order (authors' code)",
        choices=("node", "flat"),
    )  # fmt: skip
    k: int | None = key(
        None, "how far an agent sees in the joint graph; null: 1", check=_checked_k,
        accepts="a whole number from 0",
    )  # fmt: skip
    global_categories: list | None = key(
        None, "what all see of the root; null: the profile's", check=_checked_categories,
        accepts="a list of qpos, qvel",
    )  # fmt: skip
    full_observation: bool | None = key(
        None, "whether every agent sees the whole state; null: as the task has it"
    )


def make(
    name: str,
    *,
    engine: str,
    profile: str,
    action_order: str,
    k: int | None,
    global_categories: list[str] | None,
    full_observation: bool | None,
):
    """Builds the environment `name`; `auto` is the C engine, and MJX on TPUs.

    On GPUs too: up to some hundred robots a few cores are faster than any engine on the GPU, and
    beyond a thousand Warp is (`experiments/results/engines_h200.md`).

    k, global_categories and full_observation default to the profile's: `lorasa` shows neighbours
    at distance 1 and nothing of the root, but the humanoid's whole state; `gymnasium` shows
    distance 1 and the root's positions and velocities.
    """
    categories = _categories(global_categories, profile)
    if engine == "auto":
        engine = "native" if jax.default_backend() in ("cpu", "gpu") else "mjx"
    if not _installed(_PACKAGES[engine]):
        raise ConfigError(
            f"env.engine={engine} needs the package {_PACKAGES[engine].replace('.', '-')}, "
            "which is not installed; install it or choose another engine."
        )
    from lorasa_jax.envs.mamujoco.environment import MultiAgentMujoco, derived_fields
    from lorasa_jax.envs.mamujoco.physics import load_model
    from lorasa_jax.envs.mamujoco.robots import robot as robot_of

    partition = partitions.partition(name)
    robot = robot_of(partition.robot, profile)
    partitions.check(partition, robot.joints)
    if full_observation is None:
        full_observation = partition.full_observation and profile == "lorasa"
    for option, value in (("k", k), ("global_categories", global_categories)):
        if full_observation and value is not None:
            raise ConfigError(
                f"env.{option}={value} means nothing where every agent sees the whole state; "
                "drop it or set env.full_observation=false."
            )
    # The engines set options of their own on their model; the environment keeps a clean one.
    stepper = _stepper(engine, load_model(robot), robot.frame_skip, derived_fields(robot))
    return MultiAgentMujoco(
        robot,
        partition,
        stepper,
        load_model(robot),
        action_order=action_order,
        k=k,
        global_categories=categories,
        full_observation=full_observation,
    )


def _categories(chosen, profile):
    if chosen is None:
        return _CATEGORIES if profile == "gymnasium" else ()
    return tuple(chosen)


def _stepper(engine, model, frame_skip, derived):
    if engine == "native":
        from lorasa_jax.envs.mamujoco.native import NativeStepper

        return NativeStepper(model, frame_skip, derived)
    from lorasa_jax.envs.mamujoco.mjx import MjxStepper, WarpStepper

    return (MjxStepper if engine == "mjx" else WarpStepper)(model, frame_skip, derived)


def _installed(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
