"""Ways of sharing by name: what each is built from, and what it means for a run's phases."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lorasa_jax.errors import ConfigError
from lorasa_jax.registry import NoKeys, Phase, Registry, Row, extended
from lorasa_jax.sharing.scheme import Scheme

REGISTRY = Registry("sharing", "way of sharing")


class Given(NamedTuple):
    """What a named way of sharing may be built from.

    clusters: the group of every agent, for the schemes that need groups; spec for adapters
    (`lora.LoraSpec`); options: the values of the row's own keys; owners: the number of the adapter
    that every agent uses, None where each has its own.
    """

    num_agents: int
    spec: Any = None
    clusters: tuple[int, ...] | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    owners: tuple[int, ...] | None = None


class Sharing(NamedTuple):
    """What a named way of sharing means for a run: its phases' actors, and its critic.

    actor_phases: one scheme per phase; the last one's banks hold the finished policy.
    critic_phases: likewise.
    """

    actor_phases: tuple[Scheme, ...]
    critic_phases: tuple[Scheme, ...]


def register(
    name: str,
    build: Callable[[Given], Sharing],
    *,
    like: str | None = None,
    phases: tuple[Phase, ...] = (Phase(),),
    keys: type = NoKeys,
    cell: str = "ps",
    options: Mapping[str, Any] | type | None = None,
) -> None:
    """Adds a way of sharing: from then on `sharing=name` is known.

    build(given) -> Sharing with a scheme per phase. like: the row whose phases, keys (such as
    `sharing.rank`) and numbers from the paper it takes, such as ps_lora for a backbone that is
    frozen and adapted; without it, phases are named here, each with the share of the run at which
    it ends, and cell is the row of the paper's tables. options: keys of its own, {key: default} or
    a dataclass of `keys.key` fields, which `sharing.<key>=value` sets and `build` finds in
    `given.options`. Call a bank `adapters` only if it holds what `lora.init_adapters` makes, which
    is what exports of adapters read; analysis takes a frozen bank `net` for the backbone.
    Registering a name of yours again replaces it.

    Raises:
      ConfigError: the name or a key is the package's own or no plain word, or `like` is not a row
        of it.
    """
    model = Row(name, build, keys, cell, tuple(phases))
    if like is not None:
        if (tuple(phases), keys, cell) != ((Phase(),), NoKeys, "ps"):
            raise ConfigError(
                f"like={like} brings phases, keys and cell; leave them out or drop like."
            )
        model = REGISTRY.like(like)
    taken = {key for row in REGISTRY.rows() if not row.outside for key in row.defaults}
    all_keys = extended(model.keys, options, "way of sharing", taken)
    arguments = (name, build), {
        "like": like, "phases": phases, "keys": keys, "cell": cell, "options": options,
    }  # fmt: skip
    REGISTRY.register(Row(name, build, all_keys, model.cell, model.phases, registered=arguments))
