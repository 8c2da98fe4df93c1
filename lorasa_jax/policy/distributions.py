"""Action distributions: what the actor's outputs mean.

Both kinds share four functions of (outputs, ...): `sample` draws a stored action, `log_prob` and
`entropy` score it, `mode` is the greedy one; `to_env` turns a stored action into one to act with.
Log-probabilities keep a last axis: one entry per action dimension, a single one where discrete.
"""

from dataclasses import dataclass

import distrax
import jax
import jax.numpy as jnp
import numpy as np

STD_LIMIT = 0.5
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


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

    def _distribution(self, outputs, legal):
        return distrax.Categorical(logits=jnp.where(legal, outputs["logits"], -1e10))

    def sample(self, outputs, legal, key):
        return self._distribution(outputs, legal).sample(seed=key)

    def mode(self, outputs, legal):
        return self._distribution(outputs, legal).mode()

    def log_prob(self, outputs, legal, action):
        return self._distribution(outputs, legal).log_prob(action)[..., None]

    def entropy(self, outputs, legal):
        logits = jax.nn.log_softmax(jnp.where(legal, outputs["logits"], -1e10))
        return -jnp.sum(jnp.where(legal, jnp.exp(logits) * logits, 0.0), axis=-1)

    def to_env(self, action):
        return action


@dataclass(frozen=True)
class SquashedGaussian:
    """tanh of a Gaussian with standard deviation 0.5 sigmoid(s), so below 0.5.

    log_std `linear`: s is a linear head of the network (paper, Sec. 2.2); `vector`: s is a free
    parameter, as in the authors' code. Either begins at s = 1 (standard deviation 0.366).
    Stored actions are the values before tanh, so that no inverse is ever taken. Dimensions that
    `legal` leaves out count for nothing.
    """

    size: int
    log_std: str = "linear"

    @property
    def heads(self):
        heads = {"mean": (self.size, 0.01, 0.0)}
        return {**heads, "log_std": (self.size, 0.01, 1.0)} if self.log_std == "linear" else heads

    @property
    def vectors(self):
        return {} if self.log_std == "linear" else {"log_std": (self.size, 1.0)}

    def _gaussian(self, outputs):
        return distrax.Normal(outputs["mean"], STD_LIMIT * jax.nn.sigmoid(outputs["log_std"]))

    def sample(self, outputs, legal, key):
        del legal
        return self._gaussian(outputs).sample(seed=key)

    def mode(self, outputs, legal):
        del legal
        return outputs["mean"]

    def log_prob(self, outputs, legal, action):
        log_prob = self._gaussian(outputs).log_prob(action) - log_slope(action)
        return jnp.where(legal, log_prob, 0.0)

    def entropy(self, outputs, legal):
        """The Gaussian's entropy plus the mean of log |tanh'| by 5-point Gauss-Hermite rule."""
        gaussian = self._gaussian(outputs)
        points = gaussian.loc[..., None] + gaussian.scale[..., None] * _NODES.astype(np.float32)
        weights = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)
        entropy = gaussian.entropy() + (log_slope(points) * weights).sum(-1)
        return jnp.sum(jnp.where(legal, entropy, 0.0), axis=-1)

    def to_env(self, action):
        return jnp.tanh(action)


def log_slope(x: jax.Array) -> jax.Array:
    """log |d tanh(x) / dx|, stable for large |x|."""
    return distrax.Tanh().forward_log_det_jacobian(x)
