"""Run by test_devices.py with two devices: the update of a trajectory, whole and split in halves.

Prints one JSON line per algorithm: the greatest difference in parameters and value statistics,
how far parameters moved, what was reported for the whole and for the halves, and the greatest
difference between the devices.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import config as configuration
from lorasa_jax.learn import devices, rollout
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

GAME = [
    "env=specialisation_4", "sharing=ps", "network.hidden=8", "algo.num_envs=8",
    "algo.rollout_length=20", "algo.chunk_length=10", "algo.epochs=2", "total_steps=1600",
    "algo.entropy_coef=0.01", "devices=2",
]  # fmt: skip


COLLECT = rollout.collect


def learned(progress):
    """All that an update changes but environments: banks, optimisers and value statistics."""
    state = progress.state
    return state.actor, state.critic, state.value_norm


def greatest(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return float(max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs))


def main(algo):
    config = configuration.load([*GAME, f"algo={algo}"])
    team = build_teams(config)[0]
    hp = config.algo_of(0)
    progress = jax.jit(lambda: phases.begin(config, team))()
    state = jax.tree.map(lambda x: x[0], progress.state)

    play = jax.jit(lambda state: COLLECT(jax.random.key(5), team, state, hp)[1:])
    recorded = jax.tree.map(np.asarray, play(state))

    def whole(key, team, state, hp):
        return state.runner, *jax.tree.map(jnp.asarray, recorded)

    def half(key, team, state, own):
        """A device's environments out of the same trajectory."""
        trajectory, episodes = jax.tree.map(jnp.asarray, recorded)
        begin = jax.lax.axis_index(devices.AXIS) * (hp.num_envs // 2)

        def cut(axis):
            return lambda x: jax.lax.dynamic_slice_in_dim(x, begin, hp.num_envs // 2, axis)

        trajectory = trajectory._replace(
            transitions=jax.tree.map(cut(2), trajectory.transitions),
            actor_carry=cut(1)(trajectory.actor_carry),
            critic_carry=cut(1)(trajectory.critic_carry),
            last_value=cut(0)(trajectory.last_value),
            end_values=cut(1)(trajectory.end_values),
        )
        return state.runner, trajectory, jax.tree.map(lambda x: x / 2, episodes)

    found = []
    for count, collect_ in ((1, whole), (2, half)):
        rollout.collect = collect_
        advance = compile_phase(
            configuration.load([*GAME, f"algo={algo}", f"devices={count}"]), 0, team, progress
        ).advance
        found.append(advance(jax.tree.map(jnp.copy, progress), jnp.int32(2)))
    rollout.collect = COLLECT
    one, two = found
    leaves = jax.tree.leaves(learned(two))
    between = max(
        float(np.abs(np.asarray(shard.data) - np.asarray(leaf.addressable_shards[0].data)).max())
        for leaf in leaves
        for shard in leaf.addressable_shards
    )
    told = [
        {name: float(x[0]) for name, x in progress.sums.items()}
        | {"episodes": float(progress.episodes.count[0])}
        for progress in found
    ]
    print(
        json.dumps(
            {
                "algo": algo,
                "difference": greatest(learned(one), learned(two)),
                "moved": greatest(one.state.actor.banks, progress.state.actor.banks),
                "told": told,
                "between": between,
                "devices": len(leaves[0].addressable_shards),
            }
        )
    )


if __name__ == "__main__":
    devices.prepare(2)
    for name in sys.argv[1:]:
        main(name)
