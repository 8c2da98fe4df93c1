"""Environments by name: `make("ant_4x2")`; `names()` lists them all, `register` adds your own."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lorasa_jax import keys
from lorasa_jax.envs import games, jaxmarl, mamujoco, smac, smax
from lorasa_jax.envs.normalise import Normalise
from lorasa_jax.envs.types import Box, Discrete, Environment, TimeStep
from lorasa_jax.envs.wrappers import AgentIds, Standardise
from lorasa_jax.errors import ConfigError
from lorasa_jax.registry import NoKeys, Registry, Row, extended
from lorasa_jax.values import listed

__all__ = [
    "REGISTRY", "Box", "Discrete", "Environment", "Keys", "TimeStep",
    "canonical", "keys_of", "make", "names", "options", "register",
]  # fmt: skip

REGISTRY = Registry("env", "environment")


@dataclass(frozen=True)
class Keys:
    """What can be chosen of every environment."""

    agent_ids: bool = keys.key(True, "one-hot agent ids at the end of observations and states")
    standardise: bool = keys.key(
        False, "each observation and state standardised by itself, ids included (authors' code)"
    )
    normalise: str = keys.key(
        "none", "running: observations and states by running statistics, which the run keeps",
        choices=("none", "running"), later=True,
    )  # fmt: skip


def register(
    name: str,
    build: Callable[..., Environment],
    options: Mapping[str, Any] | type | None = None,
) -> None:
    """Adds an environment of your own: from then on `env=name` is known like any other.

    build(**options) makes one; options are its keyword arguments, {key: default} or a dataclass of
    `keys.key` fields, which `env.<key>=value` sets. Registering a name of yours again replaces it.

    Raises:
      ConfigError: the name is the package's own, or it or an option is no plain word.
    """
    known = REGISTRY.canonical(name)
    if known is not None and not REGISTRY.row(known).outside:
        raise ConfigError(f"the environment {name} exists already; give yours another name.")
    row_keys = extended(NoKeys, options, "environment", keys.defaults(Keys))
    arguments = (name, build), {"options": options}
    REGISTRY.register(
        Row(name, lambda name, **chosen: build(**chosen), row_keys, registered=arguments)
    )


def _register_family(family, row_keys=NoKeys):
    for name in family.NAMES:
        REGISTRY.register(Row(name, family.make, row_keys, canonical=family.canonical))


for _family in (mamujoco, smac, games, smax, jaxmarl):
    _register_family(_family, getattr(_family, "Keys", NoKeys))
REGISTRY.complete()


def names() -> tuple[str, ...]:
    """Every environment that can be made; families may know more names than they list."""
    return REGISTRY.names()


def keys_of(name: str) -> type:
    """The keys of an environment, those that all have included.

    Raises:
      ConfigError: it is not known.
    """
    row = REGISTRY.row(canonical(name) or name)
    return dataclasses.make_dataclass(
        "Keys",
        [(n, f.type, f) for kind in (Keys, row.keys) for n, f in keys.keys(kind).items()],
        namespace={"__module__": __name__},
        frozen=True,
    )


def options(name: str) -> dict[str, Any]:
    """The keys of environment `name` beyond those that all have, with their defaults."""
    return REGISTRY.row(canonical(name) or name).defaults


def make(name: str, **chosen: Any) -> Environment:
    """Builds an environment.

    Args:
      name: one of `names()`.
      **chosen: those of Keys, and options of the family; for MuJoCo see mamujoco.Keys.

    Raises:
      ConfigError: an unknown name, option or value, or an engine that is not installed.
    """
    name = canonical(name) or name
    row = REGISTRY.row(name)
    known = {**keys.defaults(Keys), **row.defaults}
    for option in chosen:
        if option not in known:
            raise ConfigError(
                f"env.{option} is not an option of {name}; its options are: "
                f"{listed(row.defaults) or 'none'}."
            )
    family_options = {option: value for option, value in chosen.items() if option in row.defaults}
    common = {option: value for option, value in chosen.items() if option not in family_options}
    common_values = keys.convert(Keys, common, "env.")
    if common_values.standardise and common_values.normalise != "none":
        raise ConfigError(
            "env.standardise=true and env.normalise=running exclude each other; drop one of them."
        )
    built = keys.convert(row.keys, family_options, "env.")
    env = row.make(name, **{option: getattr(built, option) for option in row.defaults})
    if common_values.agent_ids:
        env = AgentIds(env)
    if common_values.standardise:
        env = Standardise(env)
    if common_values.normalise == "running":
        env = Normalise(env)
    return cast(Environment, env)  # a wrapper passes on what it lacks itself


def canonical(name: str) -> str | None:
    """The registered spelling of `name`, or None; families may know more names than they list."""
    return REGISTRY.canonical(name)
