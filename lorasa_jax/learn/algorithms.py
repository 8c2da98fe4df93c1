"""The algorithms by name. A new one is a file with an `update` and one row here, or `register`."""

import functools
import keyword
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import a2po, mappo
from lorasa_jax.learn.ppo import Hyperparameters

# name -> update(state, team, hyperparameters) -> (state, report, episodes)
UPDATES = {"mappo": mappo.update, "a2po": a2po.update, "happo": a2po.update}


class Own(NamedTuple):
    """An algorithm from outside the package: the row it was made after, and keys of its own."""

    update: Callable
    like: str
    options: Mapping[str, Any]


_OWN: dict[str, Own] = {}
# Keys that mean something already.
_KEYS = {
    "name",
    "defaults",
    "actor_lr",
    "critic_lr",
    "max_grad_norm",
    "lr_decay",
    *Hyperparameters._fields,
}


def register(name: str, update: Callable, *, like: str, options: dict | None = None) -> None:
    """Adds an algorithm of your own: from then on `algo=name` is known like any other.

    update(state, team, hp, **options) does what `mappo.update` does, for any sharing scheme.
    like: the package's algorithm whose keys and whose numbers from the paper it takes. options:
    keys of its own with their defaults, numbers, words or truths, which `algo.<key>=value` sets.
    Registering a name of yours again replaces it.

    Raises:
      ConfigError: the name or a key is the package's own or no plain word, a default is of another
        kind, or `like` is not a row of the package.
    """
    options = {key: _plain(key, value) for key, value in (options or {}).items()}
    if name in UPDATES or name == "defaults" or not name.isidentifier():
        raise ConfigError(
            f"{name!r} cannot be the name of your algorithm; choose another, of letters, digits "
            "and underscores."
        )
    if like not in UPDATES:
        raise ConfigError(f"like={like} is not known; choose one of {', '.join(UPDATES)}.")
    for key in options:
        if key in _KEYS or not key.isidentifier() or keyword.iskeyword(key):
            raise ConfigError(
                f"{key!r} cannot be a key of your algorithm; choose another, of letters, digits "
                "and underscores."
            )
    _OWN[name] = Own(update, like, options)


def _plain(key, value):
    """A default as one of Python's own kinds of values."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind) and not (kind is float and not math.isfinite(value)):
            return kind(value)
    raise ConfigError(f"algo.{key}={value} must be a number, a word, true or false by default.")


def registered() -> dict[str, Own]:
    """The algorithms that were registered, by name."""
    return dict(_OWN)


def model(name: str) -> str:
    """The package's algorithm whose numbers an algorithm takes: its own, or its model's."""
    return _OWN[name].like if name in _OWN else name


def own_keys(name: str) -> Mapping[str, Any]:
    """The keys that a registered algorithm adds to its model's, with their defaults."""
    return _OWN[name].options if name in _OWN else {}


def update_of(algo) -> Callable:
    """update(state, team, hyperparameters) of a configuration's algorithm (schema.Algo)."""
    own = _OWN.get(algo.name)
    if own is None:
        return UPDATES[algo.name]
    return functools.partial(own.update, **{key: getattr(algo, key) for key in own.options})
