"""Multi-agent MuJoCo: robots, partitions and engines, joined by name."""

import importlib.util

import jax

from lorasa_jax.envs.mamujoco import partitions
from lorasa_jax.envs.mamujoco.partitions import MANY, PARTITIONS, canonical
from lorasa_jax.errors import ConfigError

__all__ = ["NAMES", "OPTIONS", "canonical", "make"]

NAMES = (*PARTITIONS, *MANY)
OPTIONS = {
    "engine": "auto",
    "profile": "lorasa",
    "action_order": "node",
    "k": None,
    "global_categories": None,
    "full_observation": None,
}
_VALUES = {
    "engine": ("auto", "native", "mjx", "warp"),
    "profile": ("lorasa", "gymnasium"),
    "action_order": ("node", "flat"),
    "full_observation": (None, True, False),
}
_PACKAGES = {"native": "mujoco", "mjx": "mujoco.mjx", "warp": "mujoco.mjx"}
_CATEGORIES = ("qpos", "qvel")


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
    chosen = {
        "engine": engine,
        "profile": profile,
        "action_order": action_order,
        "full_observation": full_observation,
    }
    for option, value in chosen.items():
        if value not in _VALUES[option]:
            accepted = ", ".join(str(v).lower() for v in _VALUES[option] if v is not None)
            raise ConfigError(f"env.{option}={value} is not known; choose one of {accepted}.")
    if k is not None and (not isinstance(k, int) or isinstance(k, bool)):
        raise ConfigError(f"env.k={k} must be a whole number.")
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
    if not isinstance(chosen, list | tuple) or any(c not in _CATEGORIES for c in chosen):
        raise ConfigError(
            f"env.global_categories={chosen} must be a list of some of {', '.join(_CATEGORIES)}."
        )
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
