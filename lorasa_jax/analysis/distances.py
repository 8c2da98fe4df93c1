"""Distances between two agents' action distributions at the same observation.

Categorical distributions are arrays of probabilities [..., action], illegal actions at zero;
continuous ones are Gaussians, taken before tanh, where Wasserstein distances have a closed form.
Total variation and Jensen-Shannon are the same before and after tanh, which is a bijection.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank
from jax.scipy.stats import norm

from lorasa_jax.policy.distributions import Categorical, SquashedGaussian

GRID = 257  # points of the quadrature over +-8 standard deviations


class Gaussian(NamedTuple):
    """Independent Gaussians; mean, std and exists [..., dimension].

    exists is False for dimensions that pad an agent's actions; they count for nothing.
    """

    mean: jax.Array
    std: jax.Array
    exists: jax.Array


def distributions(
    kind: Categorical | SquashedGaussian, outputs: dict[str, jax.Array], legal: jax.Array
):
    """The distributions that outputs [agent, ..., feature] mean under masks `legal` [..., feature].

    Every leaf of the result has the leading agent axis.
    """
    if isinstance(kind, Categorical):
        return jax.nn.softmax(jnp.where(legal[None], outputs["logits"], -1e10))
    mean, std = outputs["mean"], kind.std(outputs)
    return Gaussian(mean, std, jnp.broadcast_to(legal, mean.shape))


def total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
    """[...], in [0, 1]: also the 1-Wasserstein distance where any two actions are 1 apart."""
    return 0.5 * jnp.abs(p - q).sum(-1)


def index_wasserstein(p: jax.Array, q: jax.Array) -> jax.Array:
    """1-Wasserstein [...] where actions are as far apart as their numbers."""
    return jnp.abs(jnp.cumsum(p - q, -1)[..., :-1]).sum(-1)


def jensen_shannon(p: jax.Array, q: jax.Array) -> jax.Array:
    """The square root [...] of the Jensen-Shannon divergence in bits: a metric in [0, 1]."""
    total = p + q
    balance = jnp.where(total > 0, (p - q) / jnp.where(total > 0, total, 1.0), 0.0)
    return jnp.sqrt(jnp.sum(0.5 * total * _information(balance), -1))


def gaussian_wasserstein_1(a: Gaussian, b: Gaussian) -> jax.Array:
    """1-Wasserstein [...] with the sum of |x_d - y_d| as ground metric: the dimensions' sum.

    In one dimension the best coupling moves quantile to quantile: the mean of
    |shift + stretch Z| with Z normal.
    """
    shift, stretch = jnp.abs(a.mean - b.mean), jnp.abs(a.std - b.std)
    z = shift / jnp.where(stretch > 0, stretch, 1.0)
    folded = 2.0 * stretch * norm.pdf(z) + shift * (1.0 - 2.0 * norm.cdf(-z))
    return jnp.sum(jnp.where(a.exists, jnp.where(stretch > 0, folded, shift), 0.0), -1)


def gaussian_wasserstein_2(a: Gaussian, b: Gaussian) -> jax.Array:
    """2-Wasserstein [...] with the Euclidean ground metric, over all dimensions together."""
    squares = jnp.square(a.mean - b.mean) + jnp.square(a.std - b.std)
    return jnp.sqrt(jnp.sum(jnp.where(a.exists, squares, 0.0), -1))


def gaussian_total_variation(a: Gaussian, b: Gaussian) -> jax.Array:
    """The mean [...] over dimensions of each dimension's total variation.

    From the two points at which densities cross, in a's standard deviations; b's are m and s.
    """
    m, s = (b.mean - a.mean) / a.std, b.std / a.std
    square = (1.0 - s) * (1.0 + s)
    constant = jnp.square(m) + 2.0 * jnp.square(s) * jnp.log(s)
    root = jnp.sqrt(jnp.maximum(jnp.square(m) - square * constant, 0.0))
    half = m + jnp.where(m < 0, -root, root)
    same = half == 0.0  # equal distributions, whose densities cross everywhere
    crossings = half / square, constant / jnp.where(same, 1.0, half)
    ahead = [jnp.where(same, 0.0, norm.cdf(z) - norm.cdf((z - m) / s)) for z in crossings]
    between = jnp.abs(ahead[0] - ahead[1])
    return _mean(0.5 * (jnp.abs(ahead[0]) + jnp.abs(ahead[1]) + between), a.exists)


def gaussian_jensen_shannon(a: Gaussian, b: Gaussian) -> jax.Array:
    """The mean [...] over dimensions of each dimension's `jensen_shannon`, by quadrature.

    The divergence is the mean under (a + b) / 2 of a bounded function of the log-ratio; half of
    it is integrated on a grid of a's standard deviations, half on one of b's.
    """
    z = jnp.linspace(-8.0, 8.0, GRID)
    z = broadcast_to_rank(z, a.mean.ndim + 1)
    mass = norm.pdf(z) / norm.pdf(z).sum()

    def under(one):
        x = one.mean[..., None] + one.std[..., None] * z
        log_ratio = _log_density(a, x) - _log_density(b, x)
        return jnp.sum(mass * _information(jnp.tanh(0.5 * log_ratio)), -1)

    return _mean(jnp.sqrt(0.5 * (under(a) + under(b))), a.exists)


def _log_density(gaussian, x):
    z = (x - gaussian.mean[..., None]) / gaussian.std[..., None]
    return -0.5 * jnp.square(z) - jnp.log(gaussian.std[..., None])


def _information(balance):
    """1 minus the entropy in bits of a coin of balance (p - q) / (p + q); accurate near 0."""
    sides = jnp.stack([balance, -balance])
    terms = jnp.where(sides > -1.0, (1.0 + sides) * jnp.log1p(jnp.maximum(sides, -1.0 + 1e-7)), 0.0)
    return jnp.maximum(0.5 * terms.sum(0) / jnp.log(2.0), 0.0)


def _mean(x, exists):
    return jnp.sum(jnp.where(exists, x, 0.0), -1) / jnp.maximum(exists.sum(-1).astype(x.dtype), 1.0)


CATEGORICAL = {
    "wasserstein": total_variation,
    "index_wasserstein": index_wasserstein,
    "total_variation": total_variation,
    "jensen_shannon": jensen_shannon,
}
GAUSSIAN = {
    "wasserstein": gaussian_wasserstein_1,
    "wasserstein_1": gaussian_wasserstein_1,
    "wasserstein_2": gaussian_wasserstein_2,
    "total_variation": gaussian_total_variation,
    "jensen_shannon": gaussian_jensen_shannon,
}


def distances_of(kind: Categorical | SquashedGaussian) -> dict:
    """Every distance by name that fits a kind of action distribution."""
    return CATEGORICAL if isinstance(kind, Categorical) else GAUSSIAN
