"""From a trajectory of experience to the blocks of sequences that an epoch walks through."""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn.rollout import Trajectory, merge_time
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.networks import Views

# Samples in a block: at width 64 their activations fit the cores' caches. Measured on two cores for
# Ant: MAPPO's update takes 1.08, 1.08, 1.07, 1.16, 1.21 s with 1600, 3200, 4000, 8000, 16000 rows,
# A2PO's 1.61, 1.43, 1.34 s with 1000, 2000, 4000.
CACHED_ROWS = 4000


class Batch(NamedTuple):
    """Sequences for training: [block, step, agent, sequence, ...].

    Agents come before sequences so that per-agent weights are one batched matrix product without
    transposes. first [block, step, sequence]; carries [block, agent, sequence, hidden].
    obs and state are as networks prepare them, or `Views` of that. value and target are normalised
    and raw respectively; advantage is normalised. others is the factor of agents that were updated
    before, where an algorithm has one; types: whose weights agents used, where that comes with
    the episode.
    """

    obs: jax.Array | Views
    state: jax.Array | Views
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    legal: jax.Array
    active: jax.Array
    advantage: jax.Array
    target: jax.Array
    first: jax.Array
    actor_carry: jax.Array
    critic_carry: jax.Array
    others: jax.Array | None = None
    types: jax.Array | None = None


def prepare(
    trajectory: Trajectory,
    team: Team,
    advantages: jax.Array,
    targets: jax.Array,
    *,
    blocks: int,
    clock: int,
    alike: Mapping[str, int] = MappingProxyType({}),
) -> Batch:
    """Cuts a trajectory into chunks of `clock` steps, in `blocks` equal parts.

    alike: the environment's, where all agents are trained together. What they see alike is then
    kept once: a first layer multiplies it once for all agents of one network, and reads it once
    for those of several.
    advantages and targets [time, env, agent]. Chunks never interleave time: each is `clock`
    consecutive steps of one environment, and starts from the recurrent state it was played with.
    """
    steps = trajectory.transitions
    steps = steps._replace(
        obs=team.actor.network.prepare(steps.obs, alike.get("obs", 0)),
        state=team.critic.network.prepare(steps.state, alike.get("state", 0)),
    )

    def per_agent(x):  # [chunk, step, env, agent, ...] -> [block, step, agent, sequence, ...]
        return from_time(merge_time(x), blocks=blocks, clock=clock)

    def per_env(x):  # [chunk, step, env] -> [block, step, sequence]
        x = jnp.moveaxis(x, 1, 0)
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, -1), 1, 0)

    def carry(x):  # [chunk, env, agent, hidden] -> [block, agent, sequence, hidden]
        x = jnp.moveaxis(x, 2, 0)
        return jnp.moveaxis(x.reshape(x.shape[0], blocks, -1, x.shape[-1]), 1, 0)

    return Batch(
        **{
            name: jax.tree.map(per_agent, getattr(steps, name))
            for name in ("obs", "state", "action", "log_prob", "value", "legal", "active")
        },
        advantage=from_time(advantages, blocks=blocks, clock=clock),
        target=from_time(targets, blocks=blocks, clock=clock),
        first=per_env(steps.first),
        actor_carry=carry(trajectory.actor_carry),
        critic_carry=carry(trajectory.critic_carry),
        types=None if steps.types is None else per_agent(steps.types),
    )


def minibatches(key: jax.Array, batch: Batch, parts: int) -> Batch:
    """The batch with a leading axis of `parts`, its sequences dealt at random; one part as it is.

    The number of blocks must be a multiple of `parts`. The key is consumed.
    """
    if parts == 1:
        return jax.tree.map(lambda x: x[None], batch)
    blocks, sequences = batch.first.shape[0], batch.first.shape[2]
    order = jax.random.permutation(key, blocks * sequences)

    def deal(name, x):
        axis = 2 if name in ("first", "actor_carry", "critic_carry") else 3
        x = jnp.moveaxis(x, axis, 1)
        x = x.reshape(blocks * sequences, *x.shape[2:])[order]
        x = x.reshape(parts, blocks // parts, sequences, *x.shape[1:])
        return jnp.moveaxis(x, 2, axis + 1)

    return Batch(
        **{
            name: jax.tree.map(functools.partial(deal, name), x)
            for name, x in batch._asdict().items()
        }
    )


def to_time(x: jax.Array, num_envs: int) -> jax.Array:
    """[block, step, agent, sequence, ...] -> [time, env, agent, ...]: the inverse of `prepare`."""
    blocks, clock, agents, sequences = x.shape[:4]
    x = jnp.moveaxis(x, 0, 2).reshape(clock, agents, blocks * sequences, *x.shape[4:])
    x = x.reshape(clock, agents, -1, num_envs, *x.shape[3:])
    x = jnp.moveaxis(x, (0, 1), (1, 3))
    return x.reshape(-1, *x.shape[2:])


def from_time(x: jax.Array, *, blocks: int, clock: int) -> jax.Array:
    """[time, env, agent, ...] -> [block, step, agent, sequence, ...]."""
    chunks = x.shape[0] // clock  # explicit sizes, for -1 fails where there are no features
    x = jnp.moveaxis(x.reshape(chunks, clock, *x.shape[1:]), (1, 3), (0, 1))
    x = x.reshape(*x.shape[:2], blocks, chunks * x.shape[3] // blocks, *x.shape[4:])
    return jnp.moveaxis(x, 2, 0)


def block_count(sequences: int, rows_per_sequence: int) -> int:
    """The fewest equal parts of the sequences that keep a part's activations in a core's cache.

    On accelerators one part is best; gradients are summed over parts, so that the result is the
    full batch's either way.
    """
    if jax.default_backend() != "cpu":
        return 1
    for blocks in range(1, sequences + 1):
        if sequences % blocks == 0 and sequences // blocks * rows_per_sequence <= CACHED_ROWS:
            return blocks
    return sequences


def active_samples(batch: Batch, role: Role) -> jax.Array:
    """The active samples behind each agent's weights [agent], or each type's where they go by it.

    role: the actor's side of the team.
    """
    if not role.by_type:
        return batch.active.sum((0, 1, 3)).astype(float)
    assert batch.types is not None  # the rollout has stored them
    types = len(next(iter(role.scheme.banks.values())).index)
    chosen = batch.types[..., None] == jnp.arange(types)[None, None, None, None]
    return jnp.sum(chosen & batch.active[..., None], (0, 1, 2, 3)).astype(float)
