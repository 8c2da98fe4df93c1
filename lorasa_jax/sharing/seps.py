"""Selective sharing (SePS, Christianos et al. 2021): one network for each cluster of agents."""

from dataclasses import dataclass

from lorasa_jax.keys import key
from lorasa_jax.sharing.full import grouped, ps
from lorasa_jax.sharing.ways import Sharing, register


@dataclass(frozen=True)
class ClusterKeys:
    """Which agents share a network."""

    clusters: list | None = key(
        None, "the group of every agent, such as [0,0,1,1]; null: found before training"
    )
    grouping: str = key(
        "observation", "what tells agents apart: their next observation, or the reward too",
        choices=("observation", "reward"),
    )  # fmt: skip


def _seps(given):
    return Sharing((grouped(given.clusters),), (ps(given.num_agents),))


register("seps", _seps, keys=ClusterKeys, cell="seps")
