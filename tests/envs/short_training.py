"""Two real updates of the trainer on any environment, compiled in a hurry."""

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import config as configuration
from lorasa_jax.training import phases
from lorasa_jax.training.numbers import over_lanes
from lorasa_jax.training.teams import build_teams

# Less optimised code, compiled in half the time.
HURRY = {"xla_backend_optimization_level": 0}
SETTINGS = [
    "sharing=ps", "algo.num_envs=4", "algo.rollout_length=20", "algo.chunk_length=10",
    "algo.epochs=1", "network.hidden=16", "total_steps=160", "eval_episodes=2",
]  # fmt: skip


def train(*overrides):
    """Two updates, in the last phase; all is finite and parameters move; team and progress."""
    config = configuration.load([*SETTINGS, *overrides])
    teams = build_teams(config)
    team, phase = teams[-1], len(teams) - 1
    hp = config.algo_of(-1)

    def run(progress, n):
        return phases.advance(progress, n, team, hp)

    begin = jax.jit(lambda: phases.until(config, teams, phase), compiler_options=HURRY)
    advance = jax.jit(over_lanes(run, (0, None)), compiler_options=HURRY)
    first = begin()
    last = advance(first, jnp.int32(2))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(last.sums))
    assert (np.asarray(list(last.first_bad.values())) == phases.NEVER).all()
    assert last.episodes.count[0] > 0
    banks = [jax.tree.leaves(progress.state.actor.banks) for progress in (first, last)]
    assert any((x != y).any() for x, y in zip(*banks, strict=True))
    return team, last
