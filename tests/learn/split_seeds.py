"""Run by test_devices.py with eight devices: four seeds split over them, against seeds alone.

Prints one JSON object: the greatest differences in what was learned, how far parameters moved, and
the shape of a device's part.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from split_learning import greatest, learned

from lorasa_jax import config as configuration
from lorasa_jax.learn import devices
from lorasa_jax.training import phases
from lorasa_jax.training.numbers import lanes_of
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

GAME = [
    "env=specialisation_2", "sharing=ps", "network.hidden=8", "network.kind=ff",
    "algo.num_envs=4", "algo.rollout_length=20", "algo.chunk_length=10", "algo.epochs=2",
    "total_steps=1600", "algo.entropy_coef=0.01",
]  # fmt: skip


def trained(*words):
    """Progress before and after two updates."""
    config = configuration.load([*GAME, *words])
    team = build_teams(config)[0]
    before = jax.jit(lambda lanes: phases.begin(config, team, lanes))(lanes_of([config]))
    advance = compile_phase(config, 0, team, before).advance
    return before, advance(jax.tree.map(jnp.copy, before), jnp.int32(2))


def of_seed(progress, row):
    return jax.tree.map(lambda x: np.asarray(x)[row : row + 1], learned(progress))


def main():
    before, split = trained("num_seeds=4", "devices=4")
    _, single = trained("seed=3")
    _, both = trained("num_seeds=4", "devices=8")
    _, halves = trained("seed=3", "devices=2")
    leaf = both.state.runner.first
    banks = jax.tree.leaves(both.state.actor.banks)
    between = max(
        float(np.abs(np.asarray(one.data) - np.asarray(other.data)).max())
        for bank in banks
        for one in bank.addressable_shards
        for other in bank.addressable_shards
        if one.index == other.index
    )
    told = {
        "moved": greatest(split.state.actor.banks, before.state.actor.banks),
        "seeds_only": greatest(of_seed(split, 3), of_seed(single, 0)),
        "seeds_and_environments": greatest(of_seed(both, 3), of_seed(halves, 0)),
        "shards": [list(leaf.addressable_shards[0].data.shape), len(leaf.addressable_shards)],
        "between": between,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    devices.prepare(8)
    main()
