"""The algorithms by name. A new one is a file with its keys and an `update`, and one row here."""

from collections.abc import Callable, Mapping
from typing import Any

from lorasa_jax.keys import defaults
from lorasa_jax.learn import a2po, happo, mappo
from lorasa_jax.learn.ppo import Hyperparameters
from lorasa_jax.registry import Registry, Row, extended, require_plain

REGISTRY = Registry("algo", "algorithm")


def register(
    name: str,
    update: Callable,
    *,
    like: str | None = None,
    keys: type[Hyperparameters] | None = None,
    cell: str = "mappo",
    options: Mapping[str, Any] | type | None = None,
) -> None:
    """Adds an algorithm: from then on `algo=name` is known.

    update(state, team, hp, **options) does what `mappo.update` does, for any sharing scheme.
    like: the algorithm whose keys and whose numbers from the paper it takes. options: keys of its
    own, numbers, words or truths by default or a dataclass of `keys.key` fields, which
    `algo.<key>=value` sets. keys: all keys, for an algorithm that is like no other, and cell, whose
    numbers of the paper it takes. Registering a name of yours again replaces it.

    Raises:
      ConfigError: the name or a key is the package's own or no plain word, a default is of another
        kind, or `like` is not a row of the package.
    """
    model = Row(name, update, keys or mappo.Mappo, cell)
    if like is not None:
        model = REGISTRY.like(like)
    require_plain(options, "algo")
    all_keys = extended(model.keys, options, "algorithm", ("devices", "lr_scale"))
    added = [key for key in defaults(all_keys) if key not in defaults(model.keys)]

    def with_options(state, team, hp):
        return update(state, team, hp, **{key: getattr(hp, key) for key in added})

    arguments = (name, update), {"like": like, "keys": keys, "cell": cell, "options": options}
    make = with_options if added else update
    REGISTRY.register(Row(name, make, all_keys, model.cell, registered=arguments))


def update_of(algo: Hyperparameters) -> Callable:
    """update(state, team, hyperparameters) of a configuration's algorithm."""
    return REGISTRY.row(algo.name).make


register("mappo", mappo.update, keys=mappo.Mappo, cell="mappo")
register("a2po", a2po.update, keys=a2po.A2po, cell="a2po")
register("happo", happo.update, keys=happo.Happo, cell="happo")
REGISTRY.complete()
