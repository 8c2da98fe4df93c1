"""Whether agents pull a shared backbone the same way: cosines of their policy gradients."""

from typing import Any

import jax
import jax.numpy as jnp

from lorasa_jax.analysis.weights import matrices, per_agent
from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import observed, ppo, returns, rollout
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.team import Team


def experience(state: TrainState, team: Team, hp: Hyperparameters) -> Batch:
    """A trajectory played from a train state, with advantages normalised as for an update."""
    _, trajectory, _ = rollout.collect(state.key, team, state, hp)
    advantages, targets = ppo.estimate(trajectory, state.value_norm, hp)
    active = rollout.merge_time(trajectory.transitions.active)
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length
    blocks = batches.block_count(sequences, hp.chunk_length * team.env.num_agents)
    advantages = returns.normalise(advantages, active)
    steps = observed.shown(state.observed, trajectory.transitions)
    trajectory = trajectory._replace(transitions=steps)
    return batches.prepare(
        trajectory, team, advantages, targets, blocks=blocks, clock=hp.chunk_length
    )


def policy_gradients(state: TrainState, team: Team, hp: Hyperparameters, batch: Batch) -> Any:
    """The gradient of every agent's own mean loss by its own weights, [agent, ...] on every leaf.

    The loss is the algorithm's, entropy bonus included, over the agent's active samples. Weights
    are the merged ones; as merging adds to the backbone, this is also what the agent alone would
    do to a backbone that was trained.
    """
    agents = team.env.num_agents
    merged = per_agent(team.actor.scheme.weights(state.actor.banks), agents)
    critic = team.critic.scheme.weights(state.critic.banks)
    axes = jax.tree.map(lambda _: 0, merged)
    summed, _ = ppo.gradients(
        lambda merged: ((merged, axes), critic), merged, state.value_norm, batch, team, hp, hp.clip
    )
    count = jnp.moveaxis(batch.active, 2, 0).reshape(agents, -1).sum(-1).astype(float)
    count = jnp.maximum(count, 1.0)
    return jax.tree.map(lambda x: x / count.reshape(-1, *[1] * (x.ndim - 1)), summed)


def cosines(gradients: Any) -> jax.Array:
    """[agent, agent]: cosines of trees of gradients, [agent, ...] on every leaf; 0 if one is 0."""
    rows = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(gradients)]
    rows = jnp.concatenate(rows, axis=-1)
    lengths = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    rows = rows / jnp.where(lengths > 0, lengths, 1.0)
    return rows @ rows.T


def cosines_by_layer(gradients: Any) -> dict[str, jax.Array]:
    """{layer: [agent, agent]}: cosines of the gradients of every layer's weight matrix."""
    return {layer: cosines(x) for layer, x in matrices(gradients).items()}
