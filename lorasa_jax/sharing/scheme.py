"""Parameter sharing as one function: parameters in, every agent's weights out.

Parameters are kept in banks. A bank's leaves have a leading axis of K entries, and an index says
which entry each agent uses: one for all, one each, or one a group. A scheme names its banks, says
which are trained, and turns them into weights; everything else is the same code for all schemes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import broadcast_to_rank

Tree = Any
Measures = dict[str, jax.Array]


class Bank(NamedTuple):
    """Which entry each agent uses, and whether the entries are trained.

    memory: whether they are no parameters but what a scheme remembers, see Scheme.
    """

    index: tuple[int, ...]  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple's
    trained: bool = True
    memory: bool = False

    @property
    def entries(self) -> int:
        return max(self.index) + 1


class When(NamedTuple):
    """How far a phase is, between two of its updates.

    done []: its updates so far, from 1 on; of: how many it has. Where a rule ends the phase before
    early, done counts from where it would have ended at the latest, and is 0 until then.
    """

    done: jax.Array
    of: int

    @property
    def share(self) -> jax.Array:
        """The share [] of the phase that is over."""
        return self.done / max(self.of, 1)


class Scheme(NamedTuple):
    """A way to share parameters.

    banks: name -> Bank.
    init(key, fresh) -> {bank: tree}: first parameters; `fresh(key)` makes one network's.
    adopt(key, old) -> {bank: tree}: parameters that take over those of the phase before.
    combine({bank: (tree, axes)}) -> (tree, axes): a network's weights out of one part per bank.
      axes is 0 where a leaf has a leading agent axis and None where all agents share it.
    additive: whether what is added to a bank `net` does not depend on it, see analysis.weights.

    The rest is optional, None where a scheme has no such thing. trees are {bank: tree} of one seed;
    what a scheme remembers is a bank too, of `memory`, and so in checkpoints.
    penalty(trees, key) -> (loss [], {name: measure []}): added to the loss that every gradient
      step minimises, which is a mean over samples. Used by prism, kaleidoscope and adalora.
    after_update(trees, opt_state, reports, when, key) -> (trees, opt_state, {name: measure []}):
      called between updates, with the optimiser states of team.Learner and the report of the
      update; trained banks may change as well. Used by kaleidoscope, adalora and dylora.
    at_rank(trees, rank) -> trees: those of the policy that is served, whose adapters have a rank
      of at most `rank`, None for what the run itself evaluates. Used by adalora and dylora.
    ranks(trees) -> {layer: [entry of the bank adapters]}: ranks that training decided, for the
      run's summary.
    Measures are reported with the losses, under their names; the critic's as critic_<name>.
    """

    banks: Mapping[str, Bank]
    init: Callable[[jax.Array, Callable], dict[str, Tree]]
    adopt: Callable[[jax.Array, dict[str, Tree]], dict[str, Tree]]
    combine: Callable[[dict[str, tuple[Tree, Tree]]], tuple[Tree, Tree]]
    additive: bool = True
    penalty: Callable[[dict[str, Tree], jax.Array], tuple[jax.Array, Measures]] | None = None
    after_update: Callable[..., tuple[dict[str, Tree], dict[str, Tree], Measures]] | None = None
    at_rank: Callable[[dict[str, Tree], int | None], dict[str, Tree]] | None = None
    ranks: Callable[[dict[str, Tree]], dict[str, jax.Array]] | None = None

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

    def served(self, trees: dict[str, Tree], rank: int | None = None) -> dict[str, Tree]:
        """The parameters of the policy that is evaluated and kept, see at_rank."""
        return trees if self.at_rank is None else self.at_rank(trees, rank)

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


def entry_of(tree: Tree, entry: jax.Array | int) -> Tree:
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


def plus(one: jax.Array, other: jax.Array) -> jax.Array:
    """The sum of two parts of a network, of which one may have more leading (agent) axes."""
    one, other = _aligned(one, other)
    return one + other


def times(one: jax.Array, other: jax.Array) -> jax.Array:
    """The product of two parts of a network, of which one may have more leading (agent) axes."""
    one, other = _aligned(one, other)
    return one * other


def _aligned(*parts):
    rank = max(part.ndim for part in parts)
    return [broadcast_to_rank(part, rank) for part in parts]


def agent_counts(bank: Bank, per_agent: jax.Array) -> jax.Array:
    """[K]: the sum over the agents of each entry of a quantity [agent]."""
    return jnp.zeros(bank.entries, per_agent.dtype).at[np.array(bank.index)].add(per_agent)
