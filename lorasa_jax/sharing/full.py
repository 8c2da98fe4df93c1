"""Full sharing, none, and one network for each group of agents."""

import jax

from lorasa_jax.sharing.scheme import Bank, Scheme
from lorasa_jax.sharing.ways import Sharing, register


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


def _ps(given):
    shared = ps(given.num_agents)
    return Sharing((shared,), (shared,))


def _nps(given):
    independent = nps(given.num_agents)
    return Sharing((independent,), (independent,))


register("ps", _ps, cell="ps")
register("nps", _nps, cell="nps")
