import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax
from scipy.stats import norm

from lorasa_jax.policy.distributions import Categorical, SquashedGaussian, log_slope
from lorasa_jax.policy.networks import RecurrentNetwork, parameters

INITIAL_STD = 0.5 * expit(1.0)
GAUSSIAN = SquashedGaussian(3)
MEAN = np.array([[0.2, -1.5, 0.0], [0.7, 0.1, -0.4]])
LOG_STD = np.array([[1.0, 0.0, 4.0], [-1.0, 2.0, 0.5]])
OUTPUTS = {"mean": jnp.float32(MEAN), "log_std": jnp.float32(LOG_STD)}
EVERY = jnp.ones((2, 3), bool)

LOGITS = np.array([[0.3, -1.0, 2.0, 5.0], [1.0, 4.0, 1.0, -3.0]])
CHOICE = {"logits": jnp.float32(LOGITS)}
LEGAL = np.array([[True, True, True, False], [True, False, True, True]])


def test_squashed_gaussian_log_prob_is_the_change_of_variables_formula():
    action = np.array([[0.5, -1.0, 0.3], [0.0, -0.6, -2.0]])
    std = 0.5 * expit(LOG_STD)
    expected = norm.logpdf(action, MEAN, std) - np.log(1 - np.tanh(action) ** 2)
    log_prob = GAUSSIAN.log_prob(OUTPUTS, EVERY, jnp.float32(action))
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)


def test_squashed_gaussian_density_of_the_environments_action_integrates_to_one():
    played = np.linspace(-1, 1, 20001)[1:-1]
    one = {name: jnp.broadcast_to(out[0], (played.size, 3)) for name, out in OUTPUTS.items()}
    action = jnp.broadcast_to(jnp.float32(np.arctanh(played))[:, None], (played.size, 3))
    log_prob = GAUSSIAN.log_prob(one, jnp.ones_like(action, bool), action)
    mass = np.trapezoid(np.exp(np.asarray(log_prob, np.float64)), played, axis=0)
    np.testing.assert_allclose(mass, 1.0, atol=1e-4)


def test_masked_dimensions_count_for_nothing():
    legal = EVERY.at[1, 2].set(False)
    action = jnp.float32(MEAN) + 0.1
    everything = GAUSSIAN.log_prob(OUTPUTS, EVERY, action)
    masked = GAUSSIAN.log_prob(OUTPUTS, legal, action)
    np.testing.assert_array_equal(masked, np.where(legal, everything, 0.0))
    lone = {name: out[1:, 2:] for name, out in OUTPUTS.items()}
    left_out = SquashedGaussian(1).entropy(lone, EVERY[1:, 2:])
    difference = GAUSSIAN.entropy(OUTPUTS, EVERY) - GAUSSIAN.entropy(OUTPUTS, legal)
    np.testing.assert_allclose(difference, [0.0, left_out[0]], atol=1e-6)


@pytest.mark.parametrize("log_std", ["linear", "vector"])
def test_initial_standard_deviation_is_half_the_sigmoid_of_one(log_std):
    distribution = SquashedGaussian(2, log_std)
    network = RecurrentNetwork(distribution.heads, distribution.vectors, 4)
    params = parameters(network, jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (1, 5, 3))
    _, outputs = network.apply({"params": params}, jnp.zeros((5, 4)), x, jnp.zeros((1, 5), bool))
    centred = {**outputs, "mean": jnp.zeros_like(outputs["mean"])}
    at_mean = distribution.log_prob(centred, jnp.ones((1, 5, 2), bool), jnp.zeros((1, 5, 2)))
    std = np.exp(-np.asarray(at_mean)) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(std, INITIAL_STD, rtol=0.02 if log_std == "linear" else 1e-5)


def test_squashed_gaussian_samples_have_its_mean_and_deviation():
    many = {name: jnp.broadcast_to(out, (50_000, 2, 3)) for name, out in OUTPUTS.items()}
    noise = GAUSSIAN.noise(jax.random.key(0), 50_000, 2)
    action = np.asarray(GAUSSIAN.sample(many, EVERY, noise), np.float64)
    np.testing.assert_allclose(action.mean(0), MEAN, atol=0.01)
    np.testing.assert_allclose(action.std(0), 0.5 * expit(LOG_STD), rtol=0.02)


def test_squashed_gaussian_entropy_is_near_a_monte_carlo_estimate():
    many = {name: jnp.broadcast_to(out, (100_000, 2, 3)) for name, out in OUTPUTS.items()}
    action = GAUSSIAN.sample(many, EVERY, GAUSSIAN.noise(jax.random.key(1), 100_000, 2))
    log_prob = np.asarray(GAUSSIAN.log_prob(many, EVERY, action), np.float64).sum(-1)
    np.testing.assert_allclose(GAUSSIAN.entropy(OUTPUTS, EVERY), -log_prob.mean(0), atol=0.02)


def test_squashed_gaussian_plays_the_tanh_of_what_is_stored():
    np.testing.assert_array_equal(GAUSSIAN.mode(OUTPUTS, EVERY), OUTPUTS["mean"])
    np.testing.assert_allclose(GAUSSIAN.to_env(OUTPUTS["mean"]), np.tanh(MEAN), rtol=1e-6)


def test_log_slope_is_right_where_tanh_is_flat():
    x = np.array([-30.0, -1.0, 0.0, 2.0, 30.0])
    expected = -2 * np.log(np.cosh(x))
    np.testing.assert_allclose(log_slope(jnp.float32(x)), expected, rtol=1e-5, atol=1e-6)


def test_categorical_never_samples_masked_actions():
    many = {"logits": jnp.broadcast_to(CHOICE["logits"], (5_000, 2, 4))}
    noise = Categorical(4).noise(jax.random.key(0), 5_000, 2)
    action = Categorical(4).sample(many, LEGAL, noise)
    drawn = np.stack([(np.asarray(action) == a).mean(0) for a in range(4)], axis=-1)
    np.testing.assert_array_equal(drawn[~LEGAL], 0.0)
    expected = np.where(LEGAL, np.exp(log_softmax(np.where(LEGAL, LOGITS, -np.inf), -1)), 0.0)
    np.testing.assert_allclose(drawn, expected, atol=0.03)


def test_categorical_log_prob_is_log_softmax_over_legal_actions():
    for row in range(2):
        actions = np.flatnonzero(LEGAL[row])
        outputs = {"logits": jnp.broadcast_to(CHOICE["logits"][row], (3, 4))}
        legal = jnp.broadcast_to(LEGAL[row], (3, 4))
        log_prob = Categorical(4).log_prob(outputs, legal, jnp.asarray(actions))
        assert log_prob.shape == (3, 1)
        expected = log_softmax(LOGITS[row, actions])
        np.testing.assert_allclose(log_prob[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_categorical_mode_is_the_best_legal_action():
    np.testing.assert_array_equal(Categorical(4).mode(CHOICE, LEGAL), [2, 0])


def test_categorical_entropy_counts_legal_actions_only():
    entropy = Categorical(4).entropy(CHOICE, LEGAL)
    logs = [log_softmax(LOGITS[row, LEGAL[row]]) for row in range(2)]
    np.testing.assert_allclose(entropy, [-np.sum(np.exp(p) * p) for p in logs], rtol=1e-5)


def test_categorical_entropy_of_uniform_over_m_legal_actions_is_log_m():
    legal = jnp.tri(6, dtype=bool)
    entropy = Categorical(6).entropy({"logits": jnp.full((6, 6), 2.5)}, legal)
    np.testing.assert_allclose(entropy, np.log(np.arange(1, 7)), rtol=1e-6, atol=1e-7)
