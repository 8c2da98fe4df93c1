"""Environments by name: `make("ant_4x2")`; `names()` lists them all."""

from lorasa_jax.envs import games, mamujoco
from lorasa_jax.envs.types import Box, Discrete, Environment, TimeStep
from lorasa_jax.envs.wrappers import AgentIds, Standardise
from lorasa_jax.errors import ConfigError

__all__ = ["Box", "Discrete", "Environment", "TimeStep", "make", "names", "options"]

_FAMILIES = (mamujoco, games)


def names() -> tuple[str, ...]:
    """Every registered environment."""
    return tuple(name for family in _FAMILIES for name in family.NAMES)


def options(name: str) -> dict:
    """The options of environment `name` with their defaults."""
    return dict(_family(name).OPTIONS)


def make(name: str, *, agent_ids: bool = True, standardise: bool = False, **chosen) -> Environment:
    """Builds an environment.

    Args:
      name: one of `names()`.
      agent_ids: append one-hot agent ids to observations and states; counted in the sizes.
      standardise: standardise each observation and state vector by itself (ids included).
      **chosen: options of the family; for MuJoCo `engine` (auto, native, mjx), `profile`
        (lorasa), `action_order` (node, flat).

    Raises:
      ConfigError: an unknown name, option or value, or an engine that is not installed.
    """
    family = _family(name)
    for option in chosen:
        if option not in family.OPTIONS:
            accepted = ", ".join(family.OPTIONS) or "none"
            raise ConfigError(
                f"env.{option} is not an option of {name}; its options are: {accepted}."
            )
    env = family.make(name, **{**family.OPTIONS, **chosen})
    if agent_ids:
        env = AgentIds(env)
    if standardise:
        env = Standardise(env)
    return env


def _family(name):
    for family in _FAMILIES:
        if name in family.NAMES:
            return family
    raise ConfigError(f"env={name} is not known; choose one of {', '.join(names())}.")
