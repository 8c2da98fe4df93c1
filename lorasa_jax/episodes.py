"""One episode of a finished policy, to be shown."""

from typing import Any, cast

import jax
import numpy as np

from lorasa_jax.envs.types import Pictured
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import play
from lorasa_jax.learn.finished import Policy


def pictured(policy: Policy) -> Pictured:
    """The environment of a policy, whose episodes can be shown.

    Raises:
      ConfigError: the environment has no pictures.
    """
    env = policy.env()
    if not hasattr(env, "film"):
        raise ConfigError(f"env={policy.env_name} has no pictures; leave out render.")
    return cast(Pictured, env)


def episode(policy: Policy, seed: int = 0, sampled: bool = False) -> tuple[Any, np.ndarray]:
    """One episode of a policy: its states [time + 1, ...] and rewards [time].

    Raises:
      ConfigError: the environment has no pictures.
    """
    pictured(policy)
    team, (tree, axes) = policy.seeing_team, policy.weights

    @jax.jit
    def recorded(key, tree):
        return play.record(key, team, (tree, axes), sampled=sampled)

    recording = recorded(jax.random.key(seed), tree)
    length = int(recording.length)
    states = jax.tree.map(lambda x: np.asarray(x[: length + 1]), recording.states)
    return states, np.asarray(recording.rewards[:length], float)


def title(policy: Policy) -> str:
    """The title of a replay."""
    return f"{policy.env_name}, {policy.sharing}, step {policy.step:,}"
