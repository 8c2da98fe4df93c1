import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lorasa_jax.analysis import distances
from lorasa_jax.analysis.distances import Gaussian
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian

P, Q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.25, 0.75])
PAIRS = [(0.0, 0.3, 0.5, 0.2), (0.1, 0.3, 0.1, 0.05), (-0.4, 0.2, 0.9, 0.2), (0.0, 0.2, 1e-3, 0.2)]


def gaussian(mean, std, exists=True):
    mean, std = jnp.atleast_1d(jnp.float32(mean)), jnp.atleast_1d(jnp.float32(std))
    return Gaussian(mean, std, jnp.broadcast_to(exists, mean.shape))


POINTS = np.linspace(-4, 4, 400001)


def densities(pair):
    return [stats.norm(*x).pdf(POINTS) for x in (pair[:2], pair[2:])]


def both(pair):
    return gaussian(*pair[:2]), gaussian(*pair[2:])


def divergence(p, q):
    """Jensen-Shannon in bits of two densities at points close to each other."""
    middle = 0.5 * (p + q)
    sides = [x * np.log2(np.where(x > 0, x / np.where(middle > 0, middle, 1), 1)) for x in (p, q)]
    return np.trapezoid(0.5 * sum(sides), POINTS)


def test_categorical_distances_by_hand():
    assert distances.total_variation(P, Q) == pytest.approx(0.75)
    assert distances.index_wasserstein(P, Q) == pytest.approx(0.5 + 0.75)
    middle = 0.5 * (P + Q)
    sides = [np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) for x in (P, Q)]
    found = distances.jensen_shannon(jnp.float32(P), jnp.float32(Q))
    assert found == pytest.approx(np.sqrt(np.mean(sides)), rel=1e-6)


def test_index_wasserstein_is_scipys():
    actions = np.arange(3)
    expected = stats.wasserstein_distance(actions, actions, P, Q)
    assert distances.index_wasserstein(P, Q) == pytest.approx(expected)


@pytest.mark.parametrize("name", distances.CATEGORICAL)
def test_categorical_distances_of_equals_are_zero_and_of_opposites_largest(name):
    distance = distances.CATEGORICAL[name]
    one, other = jnp.float32([1, 0, 0]), jnp.float32([0, 0, 1])
    assert distance(jnp.float32(P), jnp.float32(P)) == 0.0
    largest = 2.0 if name == "index_wasserstein" else 1.0
    assert distance(one, other) == pytest.approx(largest, rel=1e-6)
    assert distance(jnp.float32(P), jnp.float32(Q)) == distance(jnp.float32(Q), jnp.float32(P))


@pytest.mark.parametrize("name", distances.GAUSSIAN)
def test_gaussian_distances_of_equals_are_zero_and_symmetric(name):
    distance, (a, b) = distances.GAUSSIAN[name], both(PAIRS[0])
    assert distance(a, a) == 0.0
    assert distance(a, b) == pytest.approx(float(distance(b, a)), rel=1e-4)


@pytest.mark.parametrize("pair", PAIRS)
def test_wasserstein_1_is_that_of_many_quantiles(pair):
    quantiles = (np.arange(200000) + 0.5) / 200000
    one, other = (stats.norm(*x).ppf(quantiles) for x in (pair[:2], pair[2:]))
    expected = stats.wasserstein_distance(one, other)
    assert distances.gaussian_wasserstein_1(*both(pair)) == pytest.approx(expected, rel=1e-4)


def test_wasserstein_distances_of_known_gaussians():
    a, b = gaussian([0.0, 1.0], [0.5, 0.2]), gaussian([3.0, 1.0], [0.5, 0.4])
    # The first dimension shifts by 3, the second stretches by 0.2: E|0.2 Z| = 0.2 sqrt(2 / pi).
    found = distances.gaussian_wasserstein_1(a, b)
    assert found == pytest.approx(3.0 + 0.2 * np.sqrt(2 / np.pi), rel=1e-6)
    assert distances.gaussian_wasserstein_2(a, b) == pytest.approx(np.sqrt(9.04), rel=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_total_variation_is_half_the_integral_between_densities(pair):
    p, q = densities(pair)
    expected = 0.5 * np.trapezoid(np.abs(p - q), POINTS)
    found = distances.gaussian_total_variation(*both(pair))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
def test_jensen_shannon_of_gaussians_is_the_integral(pair):
    expected = np.sqrt(divergence(*densities(pair)))
    assert distances.gaussian_jensen_shannon(*both(pair)) == pytest.approx(expected, rel=1e-3)


def test_far_gaussians_are_as_far_apart_as_can_be():
    a, b = gaussian(-5.0, 0.1), gaussian(5.0, 0.02)
    assert distances.gaussian_total_variation(a, b) == pytest.approx(1.0, abs=1e-6)
    assert distances.gaussian_jensen_shannon(a, b) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", distances.GAUSSIAN)
def test_padded_dimensions_count_for_nothing(name):
    distance, exists = distances.GAUSSIAN[name], jnp.array([True, False])
    a, b = gaussian([0.0, 9.0], [0.2, 0.1], exists), gaussian([0.3, -9.0], [0.4, 0.4], exists)
    alone = distance(gaussian(0.0, 0.2), gaussian(0.3, 0.4))
    assert distance(a, b) == pytest.approx(float(alone), rel=1e-6)


def test_illegal_actions_have_no_probability():
    outputs = {"logits": jnp.log(jnp.float32([[1, 2, 5], [3, 1, 9]]))}
    legal = jnp.array([True, True, False])
    found = distances.distributions(Categorical(3), outputs, legal)
    np.testing.assert_allclose(found, [[1 / 3, 2 / 3, 0], [3 / 4, 1 / 4, 0]], rtol=1e-6)


def test_gaussians_have_the_policys_standard_deviation():
    outputs = {"mean": jnp.zeros((2, 1, 3)), "log_std": jnp.ones((2, 1, 3))}
    found = distances.distributions(SquashedGaussian(3), outputs, jnp.ones((1, 3), bool))
    np.testing.assert_allclose(found.std, 0.36553, rtol=1e-4)
    assert found.exists.shape == (2, 1, 3)
    assert distances.distances_of(SquashedGaussian(3)) is distances.GAUSSIAN
