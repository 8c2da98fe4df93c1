import jax.numpy as jnp
import numpy as np

from lorasa_jax.learn import value_norm

MEAN, STD = np.array([3.0, -20.0]), np.array([2.0, 0.5])


def after(*batches):
    norm = value_norm.init(2)
    for mean, std in batches:
        mean, std = np.array(mean), np.array(std)
        norm = value_norm.update(norm, jnp.float32(mean), jnp.float32(mean**2 + std**2))
    return norm


def test_one_update_gives_each_agent_its_batchs_moments():
    mean, std = value_norm.moments(after((MEAN, STD)))
    np.testing.assert_allclose(mean, MEAN, rtol=1e-5)
    np.testing.assert_allclose(std, STD, rtol=1e-3)


def test_moments_are_the_debiased_exponential_averages():
    batches = [([1.0, 5.0], [1.0, 2.0]), ([2.0, -5.0], [3.0, 2.0]), ([6.0, 0.0], [2.0, 1.0])]
    weights = 0.99999 ** np.arange(2, -1, -1)
    means, stds = (np.array(x) for x in zip(*batches, strict=True))
    mean = np.average(means, axis=0, weights=weights)
    square = np.average(means**2 + stds**2, axis=0, weights=weights)
    got = value_norm.moments(after(*batches))
    np.testing.assert_allclose(got[0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], np.sqrt(square - mean**2), rtol=1e-4)


def test_one_agents_targets_leave_the_others_statistics_alone():
    one = value_norm.moments(after((MEAN, STD)))
    other = value_norm.moments(after(([3.0, 700.0], [2.0, 9.0])))
    for a, b in zip(one, other, strict=True):
        assert a[0] == b[0]
        assert a[1] != b[1]


def test_values_of_a_batch_become_standard():
    values = np.array([[1.0, -20.5], [5.0, -19.5]])
    norm = after((values.mean(0), values.std(0)))
    np.testing.assert_allclose(
        value_norm.normalise(norm, jnp.float32(values)), [[-1, -1], [1, 1]], rtol=1e-3
    )


def test_denormalise_is_the_inverse_of_normalise():
    values = jnp.float32(np.random.default_rng(0).standard_normal((4, 3, 2)))
    norm = after((MEAN, STD))
    there_and_back = value_norm.denormalise(norm, value_norm.normalise(norm, values))
    np.testing.assert_allclose(there_and_back, values, atol=1e-4)


def test_variance_has_a_floor_of_one_hundredth():
    _, std = value_norm.moments(after(([4.0, 4.0], [0.0, 0.05])))
    np.testing.assert_allclose(std, 0.1, rtol=1e-5)


def test_before_any_update_values_are_finite():
    values = value_norm.denormalise(value_norm.init(2), jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(values, [0.1, -0.1], rtol=1e-5)
