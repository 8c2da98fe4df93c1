"""The numbers of a configuration that are arguments of compiled code, not constants in it.

Runs that differ in these numbers and in seeds alone are one program: compiled once, and side by
side if they are stacked along the axis that seeds have.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax import keys, sharing
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import close

UPDATES = "updates"


class Lanes(NamedTuple):
    """What distinguishes runs that one program trains side by side.

    seeds [lane] of uint32; numbers {key: [lane]}, named as on the command line.
    """

    seeds: jax.Array
    numbers: dict[str, jax.Array]


def numbers_of(config: Config) -> dict[str, float]:
    """{key: value} of every number of a run that compiled code takes as an argument.

    They are the keys declared with `traced`. A number that is null or zero is none of them: it
    says that a part of the program is absent. `updates`: those of the whole run, over which
    learning rates may decay.
    """
    found = {
        f"{section}.{name}": float(value)
        for section, kind, values in _sections(config)
        for name, field in keys.keys(kind).items()
        if field.metadata["key"].traced and (value := values.get(name))
    }
    return {**found, UPDATES: config.num_updates}


def with_numbers(config: Config, numbers: Mapping[str, Any]) -> Config:
    """The configuration with other values, which may be traced, of some of its numbers.

    `updates` is no key of a configuration, and left out.

    Raises:
      ConfigError: a key is none of `numbers_of(config)`.
    """
    known = numbers_of(config)
    for name in numbers:
        if name not in known:
            raise ConfigError(f"{name} is no number of this program; {close(name, list(known))}")
    changes: dict[str, Any] = {}
    for section, _, values in _sections(config):
        new = {name: numbers[f"{section}.{name}"] for name in values
               if f"{section}.{name}" in numbers}  # fmt: skip
        if new and section == "sharing":
            changes[section] = {**config.sharing, **new}
        elif new:
            changes[section] = dataclasses.replace(getattr(config, section), **new)
    return dataclasses.replace(config, **changes)


def lanes_of(configs: Iterable[Config]) -> Lanes:
    """The lanes of runs that are one program: every run's seeds, one after the other."""
    configs = list(configs)
    seeds = [seed for config in configs for seed in config.seeds]
    rows = [numbers_of(config) for config in configs for _ in config.seeds]
    return Lanes(
        jnp.array(seeds, jnp.uint32),
        {name: jnp.array([row[name] for row in rows], jnp.float32) for name in rows[0]},
    )


def over_lanes(function: Callable, in_axes: Any = 0) -> Callable:
    """`function` over a leading lane axis; a single lane runs the unbatched kernels.

    in_axes: as `jax.vmap` takes them, 0 or None for each argument.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        given = list(zip(arguments, axes, strict=True))
        lanes = {leaf.shape[0] for x, axis in given if axis == 0 for leaf in jax.tree.leaves(x)}
        if lanes != {1}:
            return jax.vmap(function, in_axes=axes)(*arguments)
        first = [jax.tree.map(lambda x: x[0], x) if axis == 0 else x for x, axis in given]
        return jax.tree.map(lambda x: x[None], function(*first))

    return wrapped


def _sections(config):
    """(section, its keys, {key: value}) of what holds numbers."""
    yield "algo", type(config.algo), vars(config.algo)
    if config.pretrain is not None:
        yield "pretrain", type(config.pretrain), vars(config.pretrain)
    yield "sharing", sharing.REGISTRY.row(config.sharing["name"]).keys, config.sharing
