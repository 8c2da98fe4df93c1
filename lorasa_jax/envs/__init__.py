"""Environments by name: `make("ant_4x2")`; `names()` lists them all."""

from lorasa_jax.envs import games, jaxmarl, mamujoco, smac, smax
from lorasa_jax.envs.types import Box, Discrete, Environment, TimeStep
from lorasa_jax.envs.wrappers import AgentIds, Standardise
from lorasa_jax.errors import ConfigError

__all__ = ["Box", "Discrete", "Environment", "TimeStep", "canonical", "make", "names", "options"]

_FAMILIES = (mamujoco, smac, games, smax, jaxmarl)


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
      **chosen: options of the family; for MuJoCo `engine` (auto, native, mjx, warp), `profile`
        (lorasa, gymnasium), `action_order` (node, flat), `k`, `global_categories`,
        `full_observation`.

    Raises:
      ConfigError: an unknown name, option or value, or an engine that is not installed.
    """
    name = canonical(name) or name
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


def canonical(name: str) -> str | None:
    """The registered spelling of `name`, or None; families may know more names than they list."""
    for family in _FAMILIES:
        found = family.canonical(name)
        if found is not None:
            return found
    return None


def _family(name):
    for family in _FAMILIES:
        if family.canonical(name) == name:
            return family
    raise ConfigError(f"env={name} is not known; choose one of {', '.join(names())}.")
