"""Runs of seconds: trained, continued and compared."""

import os

import jax
import numpy as np

from lorasa_jax import config as configuration
from lorasa_jax.config.overrides import quoted
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training import execution, runs, stored

LONG = os.environ.get("FAULTS_LONG") == "1"
TINY = [
    "env=probe_observation", "sharing=ps", "network.kind=ff", "network.hidden=4",
    "algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=4", "algo.epochs=1",
    "total_steps=48", "eval_every=1", "checkpoint_every=1", "eval_episodes=2",
    "updates_per_call=1",
]  # fmt: skip
STOPPED = 4  # evaluations, the first before training, after which the unfinished run stopped


def settings(out, *overrides):
    return configuration.load([*TINY, *overrides, f"out={quoted(str(out))}"])


def train(out, *overrides, stop_after=None):
    """Trains or continues; the summary, None if it stopped after so many evaluations."""
    seen = iter(range(1, 10**6))
    callback = None if stop_after is None else lambda: next(seen) == stop_after - 1
    return execution.execute(settings(out, *overrides), callback)


def outcome(out, *overrides):
    """The sentence with which training was refused or had to stop; None where it ended well."""
    try:
        train(out, *overrides)
    except (ConfigError, TrainingError) as error:
        assert "\n" not in str(error) and "Traceback" not in str(error), error
        return str(error)
    return None


def rows(out):
    """All that metrics.jsonl says of training."""
    told = ("steps_per_second", "lost_checkpoints")
    return [{k: x for k, x in row.items() if k not in told} for row in stored.metrics(out).rows]


def leaves(out, step=None):
    """All arrays of a checkpoint, as bytes."""
    progress = runs.load(out, step).progress
    tree = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, progress)
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def _is_key(x):
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
