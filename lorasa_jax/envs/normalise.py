"""Observations normalised by running statistics, which training keeps and evaluation takes over."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

from lorasa_jax.envs.wrappers import ObservationWrapper

CLIP = 10.0
EPSILON = 1e-8


class Moments(NamedTuple):
    """How many vectors were seen [], and mean and variance [features] over them."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.count
    mean: jax.Array
    variance: jax.Array


class Observed(NamedTuple):
    """The statistics of a run: of observations, and of the critic's states."""

    obs: Moments
    state: Moments


def nothing_seen(env) -> Observed:
    """Statistics before anything was seen, which change nothing but clip values."""

    def none(size):
        return Moments(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))

    return Observed(none(env.observation_size), none(env.state_size))


def combined(old: Moments, new: Moments) -> Moments:
    """The statistics of two sets together (Chan, Golub & LeVeque 1979)."""
    count = old.count + new.count
    share = new.count / jnp.maximum(count, 1.0)
    difference = new.mean - old.mean
    variance = old.variance + share * (new.variance - old.variance)
    between = share * (1.0 - share) * jnp.square(difference)
    result = Moments(count, old.mean + share * difference, variance + between)
    first = old.count == 0.0
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), new, result)


def normalised(moments: Moments, x: chex.Array) -> jax.Array:
    """(x - mean) / deviation of vectors [..., features], clipped to +-10."""
    scale = jax.lax.rsqrt(moments.variance + EPSILON)
    mean, scale = (broadcast_to_rank(each, x.ndim) for each in (moments.mean, scale))
    return jnp.clip((x - mean) * scale, -CLIP, CLIP)


def shown(moments: Moments | None, x: Any) -> jax.Array:
    """Vectors [..., features] as networks see them: as they are without statistics."""
    return x if moments is None else normalised(moments, x)


class Normalise(ObservationWrapper):
    """An environment whose observations are to be normalised by running statistics.

    Without `statistics` it shows them as they are: training keeps the statistics in its own state
    and applies them itself. With them it shows what the finished policy is to see.
    """

    normalise = "running"

    def __init__(self, env, statistics: Observed | None = None):
        super().__init__(env)
        self.statistics = statistics

    @property
    def alike(self):
        return getattr(self.env, "alike", {})

    def view(self, timestep):
        if self.statistics is None:
            return timestep
        return timestep._replace(
            obs=normalised(self.statistics.obs, timestep.obs),
            state=normalised(self.statistics.state, timestep.state),
        )


def showing(env, statistics: Observed | None):
    """The environment as a policy with these statistics sees it; None: as it is."""
    return env if statistics is None else Normalise(env.env, statistics)
