"""Action distributions: what the actor's outputs mean.

Both kinds share their functions: `noise` draws what `sample` turns into a stored action, so that a
whole trajectory's randomness comes from one call outside the loop; `log_prob` and `entropy` score
stored actions, `mode` is the greedy one, `to_env` makes one to act with.
Log-probabilities keep a last axis: one entry per action dimension, a single one where discrete;
`dimensions` tells which of them exist. `measures` are further numbers that training reports.
Distrax is imported where it is first used: it takes as long as JAX itself, and a run says something
before.
"""

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp

STD_LIMIT = 0.5


@dataclass(frozen=True)
class Categorical:
    """Choice among `n` actions; illegal ones have probability zero."""

    n: int

    @property
    def heads(self):
        return {"logits": (self.n, 0.01, 0.0)}

    @property
    def vectors(self):
        return {}

    def _distribution(self, outputs, legal) -> Any:
        import distrax

        return distrax.Categorical(logits=jnp.where(legal, outputs["logits"], -1e10))

    def noise(self, key, *shape):
        return jax.random.gumbel(key, (*shape, self.n))

    def sample(self, outputs, legal, noise):
        return jnp.argmax(self._distribution(outputs, legal).logits + noise, axis=-1)

    def mode(self, outputs, legal):
        return self._distribution(outputs, legal).mode()

    def log_prob(self, outputs, legal, action):
        return self._distribution(outputs, legal).log_prob(action)[..., None]

    def entropy(self, outputs, legal):
        logits = jax.nn.log_softmax(jnp.where(legal, outputs["logits"], -1e10))
        return -jnp.sum(jnp.where(legal, jnp.exp(logits) * logits, 0.0), axis=-1)

    def dimensions(self, legal):
        """1.0 for the one dimension [..., 1] that a discrete action has."""
        return jnp.ones((*legal.shape[:-1], 1))

    def measures(self, outputs, legal):
        return {}

    def to_env(self, action):
        return action


@dataclass(frozen=True)
class SquashedGaussian:
    """tanh of a Gaussian with standard deviation m + (0.5 - m) sigmoid(s), m being `std_min`.

    log_std `vector`: s is a free parameter for every dimension, as in the authors' code; `linear`:
    s is a linear head of the network (paper, Sec. 2.2). Either begins at s = 1 (standard deviation
    0.366 where m is 0). A linear head moves s some 17 times as fast, and exploration is over within
    a million steps of Ant 4x2.
    Stored actions are the values before tanh, so that no inverse is ever taken. Dimensions that
    `legal` leaves out count for nothing.
    """

    size: int
    log_std: str = "vector"
    std_min: float = 0.0

    @property
    def heads(self):
        heads = {"mean": (self.size, 0.01, 0.0)}
        return {**heads, "log_std": (self.size, 0.01, 1.0)} if self.log_std == "linear" else heads

    @property
    def vectors(self):
        return {} if self.log_std == "linear" else {"log_std": (self.size, 1.0)}

    def std(self, outputs):
        """Standard deviations [..., size] before tanh, in (std_min, 0.5)."""
        return self.std_min + (STD_LIMIT - self.std_min) * jax.nn.sigmoid(outputs["log_std"])

    def _gaussian(self, outputs) -> Any:
        import distrax

        return distrax.Normal(outputs["mean"], self.std(outputs))

    def noise(self, key, *shape):
        return jax.random.normal(key, (*shape, self.size))

    def sample(self, outputs, legal, noise):
        del legal
        gaussian = self._gaussian(outputs)
        return gaussian.loc + gaussian.scale * noise

    def mode(self, outputs, legal):
        del legal
        return outputs["mean"]

    def log_prob(self, outputs, legal, action):
        log_prob = self._gaussian(outputs).log_prob(action) - log_slope(action)
        return jnp.where(legal, log_prob, 0.0)

    def entropy(self, outputs, legal):
        """The Gaussian's entropy plus the mean of log |tanh'| by the 2-point Gauss-Hermite rule."""
        gaussian = self._gaussian(outputs)
        above, below = gaussian.loc + gaussian.scale, gaussian.loc - gaussian.scale
        entropy = gaussian.entropy() + 0.5 * (log_slope(above) + log_slope(below))
        return jnp.sum(jnp.where(legal, entropy, 0.0), axis=-1)

    def dimensions(self, legal):
        """1.0 for dimensions [..., size] that exist, 0.0 for padding."""
        return legal.astype(float)

    def measures(self, outputs, legal):
        """action_std [...]: the mean standard deviation (before tanh) of what exists."""
        exists = self.dimensions(legal)
        count = jnp.maximum(exists.sum(-1), 1.0)
        return {"action_std": jnp.sum(self.std(outputs) * exists, axis=-1) / count}

    def to_env(self, action):
        return jnp.tanh(action)


def log_slope(x: jax.Array) -> jax.Array:
    """log |d tanh(x) / dx|, stable for large |x|."""
    import distrax

    return cast(jax.Array, distrax.Tanh().forward_log_det_jacobian(x))
