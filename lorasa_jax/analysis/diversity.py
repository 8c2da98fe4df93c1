"""How different agents' policies are: distance matrices, and numbers that sum them up."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.analysis import policies
from lorasa_jax.analysis.distances import distributions
from lorasa_jax.analysis.observations import Observations
from lorasa_jax.learn.team import Team
from lorasa_jax.sharing import entry_of

# What "diversity" means wherever it is told: 1-Wasserstein distance, on what the team itself meets
# in LENGTH steps (an episode's at most) of ENVS environments, see `visits`.
DISTANCE = "wasserstein"
LENGTH, ENVS = 120, 8


def visits(team: Team) -> tuple[int, int]:
    """(steps, environments) of the observations that a team's diversity is measured on."""
    return min(LENGTH, team.env.max_steps), ENVS


def distance_matrix(
    distance: Callable,
    team: Team,
    actor_weights,
    observations: Observations,
    *,
    own_ids: bool = False,
) -> jax.Array:
    """[agent, agent]: mean distance of agents' policies over everything that anyone observed.

    Every agent's network sees the same sequences, see `policies`; observations of inactive agents
    are left out. distance is one of `distances.distances_of(team.distribution)`.

    Raises:
      ValueError: own_ids where the environment's observations carry no ids.
    """
    outputs = policies.outputs(team, actor_weights, observations, own_ids=own_ids)
    distributions_ = distributions(team.distribution, outputs, observations.legal)
    return pairwise(distance, distributions_, observations.active)


def pairwise(distance: Callable, distributions_, active: jax.Array) -> jax.Array:
    """[agent, agent]: mean over active samples [...] of distances of distributions [agent, ...]."""
    agents = len(jax.tree.leaves(distributions_)[0])
    one, other = np.triu_indices(agents, k=1)
    counted = active.astype(float)

    def pair(pair):
        a, b = (entry_of(distributions_, agent) for agent in pair)
        return jnp.sum(distance(a, b) * counted) / counted.sum()

    matrix = jnp.zeros((agents, agents))
    if agents > 1:
        matrix = matrix.at[one, other].set(jax.lax.map(pair, (jnp.array(one), jnp.array(other))))
    return matrix + matrix.T


def snd(matrix: np.ndarray) -> float:
    """System Neural Diversity (Bettini et al. 2025): the mean distance of two different agents.

    2 / (n (n - 1) |O|) sum over pairs i < j and observations o of D(pi_i(o), pi_j(o)), the sum
    over observations being in the matrix [agent, agent] already.
    """
    return float(np.asarray(matrix, float)[np.triu_indices(len(matrix), k=1)].mean())


def snd_by_group(matrix: np.ndarray, groups: Sequence[int]) -> tuple[float | None, float | None]:
    """Mean distance of two agents of the same group, and of two of different groups.

    None where there are no such pairs. groups [agent], such as unit types.
    """
    one, other = np.triu_indices(len(matrix), k=1)
    group, values = np.asarray(groups), np.asarray(matrix, float)[one, other]
    same = group[one] == group[other]

    def mean(pairs):
        return float(values[pairs].mean()) if pairs.any() else None

    return mean(same), mean(~same)


def silhouette(matrix: np.ndarray, groups: Sequence[int]) -> float:
    """How well groups [agent] explain the distances, from -1 to 1 (Rousseeuw 1987).

    Raises:
      ValueError: fewer than 2 groups, or as many as agents.
    """
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(np.asarray(matrix, float), groups, metric="precomputed"))


def social_entropy(matrix: np.ndarray) -> float:
    """Hierarchic social entropy (Balch 2000): the integral over h of the entropy of clusters.

    Clusters at h are those of complete linkage, whose agents are at most h apart; entropy in bits
    of the shares of agents in them. It has the distance's unit, and grows with the team.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    tree = linkage(squareform(np.asarray(matrix, float), checks=False), method="complete")
    levels = np.concatenate([[0.0], np.unique(tree[:, 2])])
    entropies = [_entropy(fcluster(tree, level, criterion="distance")) for level in levels[:-1]]
    return float(np.sum(entropies * np.diff(levels)))


def _entropy(labels):
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-np.sum(shares * np.log2(shares)))
