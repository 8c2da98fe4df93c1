"""What happens to a team when agents act with each other's weights.

An assignment [agent] says whose weights each agent uses; its observations keep its own id. A task
is specialised if policies differ and exchanging them costs return (Tessera et al. 2025).
"""

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.learn.play import EpisodeResults, play
from lorasa_jax.learn.team import Team


def reassigned(weights, assignment: jax.Array):
    """Weights with every agent's replaced by those of the agent that the assignment names."""
    tree, axes = weights
    take = lambda axis, x: x[assignment] if axis == 0 else x  # noqa: E731
    return jax.tree.map(take, axes, tree, is_leaf=lambda axis: axis is None), axes


def play_assignments(
    key: jax.Array,
    team: Team,
    actor_weights,
    assignments: jax.Array,
    *,
    episodes: int,
    sampled: bool = False,
) -> EpisodeResults:
    """Results [assignment, episode] of episodes under each of assignments [assignment, agent].

    Greedy actions unless sampled. All assignments play with the same key, hence from the same
    starts. The key is consumed.
    """

    def one(assignment):
        weights = reassigned(actor_weights, assignment)
        return play(key, team, weights, episodes=episodes, sampled=sampled)

    return jax.lax.map(one, jnp.asarray(assignments))


def replacements(agents: int) -> np.ndarray:
    """[agent i, agent j, agent]: i acts with j's weights, all others with their own."""
    ids = np.arange(agents)
    return np.where(ids == ids[:, None, None], ids[None, :, None], ids)


def exchanges(agents: int) -> np.ndarray:
    """[agent i, agent j, agent]: i and j act with each other's weights."""
    ids = np.arange(agents)
    i, j = ids[:, None, None], ids[None, :, None]
    return np.where(ids == i, j, np.where(ids == j, i, ids))


def derangements(agents: int, count: int, seed: int = 0) -> np.ndarray:
    """[draw, agent]: at most `count` different assignments at random; nobody keeps its own.

    Raises:
      ValueError: there is one agent, or count is not positive.
    """
    if agents < 2 or count < 1:
        raise ValueError(f"{count} exchanges of {agents} agents cannot be drawn.")
    count = min(count, _number_of_derangements(agents))
    generator, ids, draws = np.random.default_rng(seed), np.arange(agents), {}
    while len(draws) < count:
        drawn = generator.permutation(agents)
        if (drawn != ids).all():
            draws[tuple(drawn)] = drawn
    return np.stack(list(draws.values()))


def _number_of_derangements(agents):
    previous, current = 1, 0  # of no agent, of one
    for n in range(2, agents + 1):
        previous, current = current, (n - 1) * (current + previous)
    return current


def uniform(agents: int) -> np.ndarray:
    """[agent j, agent]: all act with j's weights."""
    return np.repeat(np.arange(agents)[:, None], agents, axis=1)


def swap_matrix(key: jax.Array, team: Team, actor_weights, *, episodes: int) -> jax.Array:
    """[agent i, agent j]: mean greedy return when i acts with j's weights, others with their own.

    The diagonal holds the team's own return. The key is consumed.
    """
    return _mean_returns(key, team, actor_weights, replacements, episodes)


def exchange_matrix(key: jax.Array, team: Team, actor_weights, *, episodes: int) -> jax.Array:
    """[agent i, agent j]: mean greedy return when i and j act with each other's weights."""
    return _mean_returns(key, team, actor_weights, exchanges, episodes)


def uniform_returns(key: jax.Array, team: Team, actor_weights, *, episodes: int) -> jax.Array:
    """[agent j]: mean greedy return when all act with j's weights."""
    return _mean_returns(key, team, actor_weights, uniform, episodes)


def _mean_returns(key, team, actor_weights, assignments, episodes):
    rows = assignments(team.env.num_agents)
    flat = rows.reshape(-1, rows.shape[-1])
    results = play_assignments(key, team, actor_weights, flat, episodes=episodes)
    return results.returns.mean(-1).reshape(rows.shape[:-1])
