"""Environments by name: `make("ant_4x2")`; `names()` lists them all, `register` adds your own."""

from collections.abc import Callable
from typing import Any, NamedTuple

from lorasa_jax.envs import games, jaxmarl, mamujoco, smac, smax
from lorasa_jax.envs.normalise import Normalise
from lorasa_jax.envs.types import Box, Discrete, Environment, TimeStep
from lorasa_jax.envs.wrappers import AgentIds, Standardise
from lorasa_jax.errors import ConfigError

__all__ = [
    "Box", "Discrete", "Environment", "TimeStep",
    "canonical", "make", "names", "options", "register", "registered",
]  # fmt: skip

NORMALISE = ("none", "running")
_FAMILIES = (mamujoco, smac, games, smax, jaxmarl)


_TAKEN = ("agent_ids", "standardise", "normalise", "defaults")


class Own(NamedTuple):
    """An environment from outside the package, as a family of one; build(**options) makes it."""

    NAMES: tuple[str]
    OPTIONS: dict[str, Any]
    build: Callable[..., Environment]

    def canonical(self, name: str) -> str | None:
        return name if name in self.NAMES else None

    def make(self, name: str, **chosen) -> Environment:
        del name
        return self.build(**chosen)


_OWN: dict[str, Own] = {}


def register(name: str, build: Callable[..., Environment], options: dict | None = None) -> None:
    """Adds an environment of your own: from then on `env=name` is known like any other.

    build(**options) makes one; options are its keyword arguments with their defaults, which
    `env.<option>=value` sets. Registering a name of yours again replaces it.

    Raises:
      ConfigError: the name is the package's own, or it or an option is no plain word.
    """
    options = dict(options or {})
    if any(family.canonical(name) is not None for family in _FAMILIES):
        raise ConfigError(f"the environment {name} exists already; give yours another name.")
    for word in (name, *options):
        if not word.isidentifier() or word in _TAKEN:
            raise ConfigError(
                f"{word!r} cannot be the name of an environment or of its options; choose another, "
                "of letters, digits and underscores."
            )
    if "name" in options:
        raise ConfigError("an environment's option cannot be called name; choose another.")
    _OWN[name] = Own((name,), options, build)


def registered() -> dict[str, Own]:
    """The environments that were registered, by name."""
    return dict(_OWN)


def names() -> tuple[str, ...]:
    """Every environment that can be made."""
    return tuple(name for family in _families() for name in family.NAMES)


def options(name: str) -> dict:
    """The options of environment `name` with their defaults."""
    return dict(_family(name).OPTIONS)


def make(
    name: str,
    *,
    agent_ids: bool = True,
    standardise: bool = False,
    normalise: str = "none",
    **chosen,
) -> Environment:
    """Builds an environment.

    Args:
      name: one of `names()`.
      agent_ids: append one-hot agent ids to observations and states; counted in the sizes.
      standardise: standardise each observation and state vector by itself (ids included).
      normalise: `running`: observations and states are to be normalised by running statistics
        (ids included), which a run keeps; the environment by itself shows them as they are.
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
    return Normalise(env) if normalise == "running" else env


def canonical(name: str) -> str | None:
    """The registered spelling of `name`, or None; families may know more names than they list."""
    for family in _families():
        found = family.canonical(name)
        if found is not None:
            return found
    return None


def _families():
    return (*_FAMILIES, *_OWN.values())


def _family(name):
    for family in _families():
        if family.canonical(name) == name:
            return family
    raise ConfigError(f"env={name} is not known; choose one of {', '.join(names())}.")
