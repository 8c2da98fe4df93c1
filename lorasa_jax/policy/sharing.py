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

from lorasa_jax.policy.lora import LoraSpec, init_adapters, merge

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
    weights(trees) -> (tree, axes): per-agent weights; axes is 0 where a leaf has a leading agent
      axis and None where all agents share it, ready for `jax.vmap`'s in_axes.
    """

    banks: Mapping[str, Bank]
    init: Callable[[jax.Array, Callable], dict[str, Tree]]
    adopt: Callable[[jax.Array, dict[str, Tree]], dict[str, Tree]]
    weights: Callable[[dict[str, Tree]], tuple[Tree, Tree]]

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(name for name, bank in self.banks.items() if bank.trained)


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

    return Scheme({"net": bank}, init, adopt, lambda trees: gather(trees["net"], index))


def ps(num_agents: int) -> Scheme:
    """Full parameter sharing (PS + ID)."""
    return grouped((0,) * num_agents)


def nps(num_agents: int) -> Scheme:
    """No parameter sharing."""
    return grouped(tuple(range(num_agents)))


def adapted(base: Scheme, spec: LoraSpec) -> Scheme:
    """LoRA on a frozen backbone: `base`'s network plus one trained adapter per agent."""
    index = base.banks["net"].index
    agents = tuple(range(len(index)))
    banks = {"net": base.banks["net"]._replace(trained=False), "adapters": Bank(agents)}

    def adopt(key, old):
        one = jax.tree.map(lambda x: x[0], old["net"])
        return {"net": old["net"], "adapters": init_adapters(key, one, spec, len(agents))}

    def init(key, fresh):
        net_key, adapter_key = jax.random.split(key)
        return adopt(adapter_key, base.init(net_key, fresh))

    def weights(trees):
        net, axes = gather(trees["net"], index)
        return merge(net, axes, trees["adapters"], spec)

    return Scheme(banks, init, adopt, weights)


class Sharing(NamedTuple):
    """What a named way of sharing means for a run: its phases' actors, and its critic.

    actor_phases: one scheme per phase; the last one's banks hold the finished policy.
    """

    actor_phases: tuple[Scheme, ...]
    critic: Scheme


def _ps(n, spec):
    return Sharing((ps(n),), ps(n))


def _nps(n, spec):
    return Sharing((nps(n),), nps(n))


def _ps_lora(n, spec):
    return Sharing((ps(n), adapted(ps(n), spec)), ps(n))


TABLE: dict[str, Callable[[int, LoraSpec | None], Sharing]] = {
    "ps": _ps,
    "nps": _nps,
    "ps_lora": _ps_lora,
}


def agent_counts(bank: Bank, per_agent: jax.Array) -> jax.Array:
    """[K]: the sum over the agents of each entry of a quantity [agent]."""
    return jnp.zeros(bank.entries, per_agent.dtype).at[np.array(bank.index)].add(per_agent)
