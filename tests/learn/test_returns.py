import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn import returns

# Errors with discount 1/2: 1 + 1/2 - 1 = 1/2, 2 + 1 - 1 = 2, 3 + 2 - 2 = 3. Traces decay by 1/4.
REWARDS, VALUES, NEXT_VALUES = [1.0, 2.0, 3.0], [1.0, 1.0, 2.0], [1.0, 2.0, 4.0]
NEVER, SECOND = [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def gae(rewards=REWARDS, terminated=NEVER, truncated=NEVER, **options):
    arrays = {
        "rewards": rewards, "values": VALUES, "next_values": NEXT_VALUES,
        "terminated": terminated, "truncated": truncated,
    }  # fmt: skip
    arrays = {name: jnp.array(array) for name, array in arrays.items()}
    return returns.gae(**arrays, **{"gamma": 0.5, "gae_lambda": 0.5, **options})


def random_trajectory(seed=0, shape=(12, 3)):
    rng = np.random.default_rng(seed)
    rewards, values, last = (rng.standard_normal(s) for s in (shape, shape, shape[1:]))
    return rewards, values, np.concatenate([values[1:], last[None]])


def run(rewards, values, next_values, **options):
    zero = jnp.zeros(rewards.shape)
    return returns.gae(
        rewards=jnp.float32(rewards), values=jnp.float32(values),
        next_values=jnp.float32(next_values), **{"terminated": zero, "truncated": zero, **options},
    )  # fmt: skip


def test_gae_adds_up_decayed_errors():
    third = 3.0
    second = 2.0 + 0.25 * third
    first = 0.5 + 0.25 * second
    np.testing.assert_array_equal(gae(), [first, second, third])


def test_nothing_follows_a_termination():
    second = 2.0 - 1.0
    first = 0.5 + 0.25 * second
    np.testing.assert_array_equal(gae(terminated=SECOND), [first, second, 3.0])


def test_a_truncation_bootstraps_from_the_last_observation():
    second = 2.0 + 0.5 * 2.0 - 1.0
    first = 0.5 + 0.25 * second
    np.testing.assert_array_equal(gae(truncated=SECOND), [first, second, 3.0])


def test_a_truncation_is_neutralised_in_the_authors_mode():
    np.testing.assert_array_equal(gae(truncated=SECOND, truncation="authors"), [0.5, 0.0, 3.0])


def test_nothing_flows_through_a_truncation_in_the_authors_mode():
    other = gae([1.0, 70.0, -9.0], truncated=SECOND, truncation="authors")
    np.testing.assert_array_equal(other[:2], [0.5, 0.0])


def test_authors_mode_changes_nothing_without_truncations():
    np.testing.assert_array_equal(
        gae(terminated=SECOND, truncation="authors"), gae(terminated=SECOND)
    )


@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_later_rewards_do_not_reach_back_over_an_episodes_end(flag):
    changed = gae([1.0, 2.0, 100.0], **{flag: SECOND})
    np.testing.assert_array_equal(changed[:2], gae(**{flag: SECOND})[:2])
    assert changed[2] != 3.0


def test_lambda_one_gives_discounted_return_minus_value():
    rewards, values, next_values = random_trajectory()
    expected, following = np.zeros_like(values), next_values[-1]
    for t in reversed(range(len(rewards))):
        following = rewards[t] + 0.9 * following
        expected[t] = following - values[t]
    got = run(rewards, values, next_values, gamma=0.9, gae_lambda=1.0)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_lambda_zero_gives_one_step_errors():
    rewards, values, next_values = random_trajectory()
    expected = rewards + 0.9 * next_values - values
    got = run(rewards, values, next_values, gamma=0.9, gae_lambda=0.0)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_columns_end_independently():
    rewards, values, next_values = random_trajectory()
    ended = np.zeros(rewards.shape)
    ended[3, 0] = ended[8, 1] = 1.0
    options = {"gamma": 0.9, "gae_lambda": 0.8}
    together = run(rewards, values, next_values, terminated=jnp.float32(ended), **options)
    for column in range(3):
        one = [array[:, column] for array in (rewards, values, next_values)]
        alone = run(*one, terminated=jnp.float32(ended[:, column]), **options)
        np.testing.assert_allclose(together[:, column], alone, rtol=1e-6, atol=1e-6)


def test_normalise_gives_zero_mean_and_unit_deviation_over_active_samples():
    rng = np.random.default_rng(0)
    advantages, active = 5 + 3 * rng.standard_normal((50, 4)), rng.random((50, 4)) < 0.7
    kept = np.asarray(returns.normalise(jnp.float32(advantages), jnp.asarray(active)))[active]
    chosen = advantages[active]
    np.testing.assert_allclose(kept, (chosen - chosen.mean()) / chosen.std(), rtol=1e-4, atol=1e-5)


def test_normalise_ignores_inactive_samples():
    active = jnp.array([[True, True], [True, False]])
    some, others = (
        returns.normalise(jnp.array([[1.0, 2.0], [6.0, x]]), active) for x in (3.0, -1e4)
    )
    np.testing.assert_array_equal(some[active], others[active])


def test_normalise_of_nobody_is_finite():
    advantages = returns.normalise(jnp.array([1.0, 2.0]), jnp.zeros(2, bool))
    assert np.all(np.isfinite(advantages))
