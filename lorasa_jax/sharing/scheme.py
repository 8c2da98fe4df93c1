"""Parameter sharing as one function: parameters in, every agent's weights out.

Parameters are kept in banks. A bank's leaves have a leading axis of K entries, and an index says
which entry each agent uses: one for all, one each, or one a group. A scheme names its banks, says
which are trained, and turns them into weights; everything else is the same code for all schemes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.policy.networks import HEAD, layer_of
from lorasa_jax.sharing.lora import LoraSpec, init_adapters, merge

Tree = Any


class Bank(NamedTuple):
    """Which entry each agent uses, and whether the entries are trained."""

    index: tuple[int, ...]
    trained: bool = True

    @property
    def entries(self) -> int:
        return max(self.index) + 1


class Scheme(NamedTuple):
    """A way to share parameters.

    banks: name -> Bank.
    init(key, fresh) -> {bank: tree}: first parameters; `fresh(key)` makes one network's.
    adopt(key, old) -> {bank: tree}: parameters that take over those of the phase before.
    combine({bank: (tree, axes)}) -> (tree, axes): a network's weights out of one part per bank.
      axes is 0 where a leaf has a leading agent axis and None where all agents share it.
    """

    banks: Mapping[str, Bank]
    init: Callable[[jax.Array, Callable], dict[str, Tree]]
    adopt: Callable[[jax.Array, dict[str, Tree]], dict[str, Tree]]
    combine: Callable[[dict[str, tuple[Tree, Tree]]], tuple[Tree, Tree]]

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(name for name, bank in self.banks.items() if bank.trained)

    @property
    def adapts(self) -> bool:
        """Whether what is trained is added to whole networks that are frozen, in a bank `net`."""
        return "net" in self.banks and not self.banks["net"].trained

    @property
    def independent(self) -> bool:
        """Whether training one agent leaves all others as they are."""
        return all(
            len(set(self.banks[name].index)) == len(self.banks[name].index) for name in self.trained
        )

    def weights(self, trees: dict[str, Tree]) -> tuple[Tree, Tree]:
        """All agents' weights and the axes to map over, ready for `jax.vmap`'s in_axes."""
        return self.combine(
            {name: gather(trees[name], bank.index) for name, bank in self.banks.items()}
        )

    def entries(self, trees: dict[str, Tree], agent: jax.Array) -> dict[str, Tree]:
        """Of every bank given the entry that an agent [] uses."""
        return {name: entry_of(tree, self.entry(name, agent)) for name, tree in trees.items()}

    def entry(self, bank: str, agent: jax.Array) -> jax.Array:
        """The number [] of the bank's entry that an agent [] uses."""
        return jnp.array(self.banks[bank].index)[agent]

    def agent_weights(self, entries: dict[str, Tree]) -> tuple[Tree, Tree]:
        """One agent's weights out of its entries, without an agent axis, and axes of None."""
        tree, _ = self.combine(
            {name: (entry, jax.tree.map(lambda x: None, entry)) for name, entry in entries.items()}
        )
        return tree, jax.tree.map(lambda x: None, tree)


def entry_of(tree: Tree, entry: jax.Array) -> Tree:
    """One entry of a bank's tree."""
    return jax.tree.map(lambda x: x[entry], tree)


def gather(tree: Tree, index: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Every agent's entry of a bank, and the axes to map over.

    One entry for all is passed on without an agent axis, so that all agents' samples go through
    one matrix product.
    """
    if len(set(index)) == 1:
        entry = index[0]
        return jax.tree.map(lambda x: x[entry], tree), jax.tree.map(lambda x: None, tree)
    if index == tuple(range(len(index))):
        return tree, jax.tree.map(lambda x: 0, tree)
    rows = np.array(index)
    return jax.tree.map(lambda x: x[rows], tree), jax.tree.map(lambda x: 0, tree)


def grouped(index: tuple[int, ...]) -> Scheme:
    """One network per group of agents: all in one is full sharing, each its own is none."""
    bank = Bank(index)

    def init(key, fresh):
        # One after the other: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
        return {"net": jax.lax.map(fresh, jax.random.split(key, bank.entries))}

    def adopt(key, old):
        del key
        return {"net": old["net"]}

    return Scheme({"net": bank}, init, adopt, lambda parts: parts["net"])


def ps(num_agents: int) -> Scheme:
    """Full parameter sharing (PS + ID)."""
    return grouped((0,) * num_agents)


def nps(num_agents: int) -> Scheme:
    """No parameter sharing."""
    return grouped(tuple(range(num_agents)))


def mtl(num_agents: int) -> Scheme:
    """Multi-task learning: one trunk for all, a head (and free log-std) for every agent."""
    agents = tuple(range(num_agents))
    banks = {"trunk": Bank((0,) * num_agents), "head": Bank(agents)}

    def init(key, fresh):
        nets = jax.lax.map(fresh, jax.random.split(key, num_agents))
        trunk, head = _split_head(nets)
        return {"trunk": jax.tree.map(lambda x: x[:1], trunk), "head": head}

    def adopt(key, old):
        """A network per group becomes each agent's head; the trunk is the first group's."""
        del key
        trunk, head = _split_head(old["net"])
        rows = np.zeros(num_agents, int)
        return {
            "trunk": jax.tree.map(lambda x: x[:1], trunk),
            "head": jax.tree.map(lambda x: x[rows], head),
        }

    def combine(parts):
        (trunk, trunk_axes), (head, head_axes) = parts["trunk"], parts["head"]
        return {**trunk, **head}, {**trunk_axes, **head_axes}

    return Scheme(banks, init, adopt, combine)


def _split_head(net):
    """(trunk, head): the head is the last layer with all its outputs, and free vectors."""
    head = {
        name for name, value in net.items() if layer_of(name) == HEAD or not isinstance(value, dict)
    }
    return (
        {name: value for name, value in net.items() if name not in head},
        {name: value for name, value in net.items() if name in head},
    )


def adapted(base: Scheme, spec: LoraSpec) -> Scheme:
    """LoRA on a frozen backbone: `base`'s network plus one trained adapter per agent."""
    index = base.banks["net"].index
    agents = tuple(range(len(index)))
    banks = {"net": base.banks["net"]._replace(trained=False), "adapters": Bank(agents)}

    def adopt(key, old):
        one = jax.tree.map(lambda x: x[0], old["net"])
        adapters = init_adapters(key, one, spec, len(agents))
        return {"net": old["net"], "adapters": adapters}

    def init(key, fresh):
        net_key, adapter_key = jax.random.split(key)
        return adopt(adapter_key, base.init(net_key, fresh))

    def combine(parts):
        return merge(*parts["net"], *parts["adapters"], spec)

    return Scheme(banks, init, adopt, combine)


class Given(NamedTuple):
    """What a named way of sharing may be built from.

    clusters: the group of every agent, for the schemes that need groups; spec for adapters;
    options: the values of a registered row's own keys.
    """

    num_agents: int
    spec: LoraSpec | None = None
    clusters: tuple[int, ...] | None = None
    options: Mapping[str, Any] = MappingProxyType({})


class Sharing(NamedTuple):
    """What a named way of sharing means for a run: its phases' actors, and its critic.

    actor_phases: one scheme per phase; the last one's banks hold the finished policy.
    critic_phases: likewise.
    """

    actor_phases: tuple[Scheme, ...]
    critic_phases: tuple[Scheme, ...]


def _ps(given):
    shared = ps(given.num_agents)
    return Sharing((shared,), (shared,))


def _nps(given):
    independent = nps(given.num_agents)
    return Sharing((independent,), (independent,))


def _mtl(given):
    return Sharing((mtl(given.num_agents),), (ps(given.num_agents),))


def _seps(given):
    return Sharing((grouped(given.clusters),), (ps(given.num_agents),))


def _ps_lora(given):
    shared = ps(given.num_agents)
    return Sharing((shared, adapted(shared, given.spec)), (shared, shared))


def _seps_lora(given):
    groups, shared = grouped(given.clusters), ps(given.num_agents)
    return Sharing((groups, adapted(groups, given.spec)), (shared, shared))


class Named(NamedTuple):
    """A row of the table: how to build it, what it pretrains as, and whether it needs clusters.

    pretraining: the row that the first of two phases is; None where there is only one phase.
    like: of a row from outside the package, the row that it was made after, and options its own
    keys with their defaults; see `register`.
    """

    build: Callable[[Given], Sharing]
    pretraining: str | None = None
    clustered: bool = False
    like: str | None = None
    options: Mapping[str, Any] = MappingProxyType({})

    @property
    def phases(self) -> int:
        return 1 if self.pretraining is None else 2


TABLE: dict[str, Named] = {
    "ps": Named(_ps),
    "nps": Named(_nps),
    "seps": Named(_seps, clustered=True),
    "mtl": Named(_mtl),
    "ps_lora": Named(_ps_lora, pretraining="ps"),
    "seps_lora": Named(_seps_lora, pretraining="seps", clustered=True),
}


# Keys of `sharing` that rows of the package have; a registered row brings those of its model.
KEYS = (
    "rank", "alpha", "targets", "rank_pattern", "alpha_pattern", "bias", "norms",
    "clusters", "grouping",
)  # fmt: skip


def register(
    name: str, build: Callable[[Given], Sharing], *, like: str, options: dict | None = None
) -> None:
    """Adds a way of sharing of your own: from then on `sharing=name` is known like any other.

    like: the package's row whose phases, keys (such as `sharing.rank`) and numbers from the paper
    it takes, such as ps_lora for a backbone that is frozen and adapted; its first phase must be
    that row's, so that both can start from one pretraining. Call a bank `adapters` only if it holds
    what `lora.init_adapters` makes, which is what exports of adapters read; analysis takes a frozen
    bank `net` for the backbone. Registering a name of yours again replaces it.

    options: keys of its own with their defaults, which `sharing.<key>=value` sets and `build` finds
    in `given.options`.

    Raises:
      ConfigError: the name or a key is the package's own or no plain word, or `like` is not a row
        of it.
    """
    rows = {row: named for row, named in TABLE.items() if named.like is None}
    if name in (*rows, "defaults") or not name.isidentifier():
        raise ConfigError(
            f"{name!r} cannot be the name of your way of sharing; choose another, of letters, "
            "digits and underscores."
        )
    if like not in rows:
        raise ConfigError(f"like={like} is not known; choose one of {', '.join(rows)}.")
    options = dict(options or {})
    for key in options:
        if key in ("name", "defaults", *KEYS) or not key.isidentifier():
            raise ConfigError(
                f"{key!r} cannot be a key of your way of sharing; choose another, of letters, "
                "digits and underscores."
            )
    TABLE[name] = rows[like]._replace(build=build, like=like, options=options)


def registered() -> dict[str, Named]:
    """The rows that were registered, by name."""
    return {name: named for name, named in TABLE.items() if named.like is not None}


def agent_counts(bank: Bank, per_agent: jax.Array) -> jax.Array:
    """[K]: the sum over the agents of each entry of a quantity [agent]."""
    return jnp.zeros(bank.entries, per_agent.dtype).at[np.array(bank.index)].add(per_agent)
