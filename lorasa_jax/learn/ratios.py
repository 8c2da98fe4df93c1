"""Agents' probability ratios, current policy to played, and how others' enter an agent's loss."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import ppo
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.team import Learner, Team

if TYPE_CHECKING:
    from lorasa_jax.learn.a2po import A2po


def ratios_of(weights, batch: Batch, team_: Team, hp: "A2po") -> jax.Array:
    """Ratios [time, env, agent] of policies with these weights, one number an action."""

    def block_ratios(block):
        log_prob, _ = ppo.log_probs(weights, block, team_)
        exists = team_.distribution.dimensions(block.legal)
        return AGGREGATIONS[hp.others](log_prob - block.log_prob, exists)

    return batches.to_time(jax.lax.map(block_ratios, batch), hp.num_envs)


def all_ratios(actor: Learner, batch: Batch, team_: Team, hp: "A2po") -> jax.Array:
    """Every agent's current ratios [time, env, agent]."""
    return ratios_of(team_.actor.scheme.weights(actor.banks), batch, team_, hp)


def product(ratios: jax.Array, agents: jax.Array) -> jax.Array:
    """The product [time, env] of the ratios [time, env, agent] of those `agents` [agent] marks."""
    return jnp.prod(jnp.where(agents[None, None], ratios, 1.0), axis=-1)


def mean_ratio(change: jax.Array, exists: jax.Array) -> jax.Array:
    """The mean [...] of the ratios per action dimension, of the dimensions that exist."""
    return ppo.mean_over(exists, jnp.exp(change))


def joint_ratio(change: jax.Array, exists: jax.Array) -> jax.Array:
    """The ratio [...] of the whole action; where a dimension does not exist, change is 0."""
    del exists
    return jnp.exp(change.sum(-1))


# By `others`: changes of log-probability [..., dimension] -> one ratio an action.
AGGREGATIONS = {"clipped": mean_ratio, "free": joint_ratio}


def inside_clip(batch: Batch, factor: jax.Array, hp: "A2po") -> Batch:
    """A2PO: the factor, clipped by itself, multiplies the agent's ratio before that is clipped."""
    return batch._replace(others=jnp.clip(factor, *others_range(hp)))


def with_advantage(batch: Batch, factor: jax.Array, hp: "A2po") -> Batch:
    """HAPPO: the factor multiplies the advantage."""
    del hp
    return batch._replace(advantage=factor * batch.advantage)


# By `others`: an agent's batch with the factor, arranged as its advantages are, in its loss.
OTHERS = {"clipped": inside_clip, "free": with_advantage}


def others_range(hp: "A2po") -> tuple[float, float]:
    """What the others' factor is clipped to: 1 +- others_clip, by default half of `hp.clip`."""
    clip = hp.clip / 2 if hp.others_clip is None else hp.others_clip
    return 1.0 - clip, 1.0 + clip
