import numpy as np
import pytest
from scipy import stats

from lorasa_jax.analysis import curves


def test_iqm_by_hand():
    assert curves.iqm(np.array([9.0, 1.0, 2.0, 3.0, 100.0])) == pytest.approx((2 + 3 + 9) / 3)
    assert curves.iqm(np.arange(8.0)) == pytest.approx(3.5)
    assert curves.iqm(np.array([0, 0, 5, 6, 7, 8, 99, 99.0])) == pytest.approx(6.5)


def test_iqm_of_few_seeds_is_the_mean():
    assert curves.iqm(np.array([1.0, 2.0, 6.0])) == 3.0


def test_iqm_is_scipys_trimmed_mean_over_any_axes():
    scores = np.random.default_rng(0).standard_normal((3, 7, 4))
    np.testing.assert_allclose(curves.iqm(scores, axis=1), stats.trim_mean(scores, 0.25, axis=1))
    pooled = stats.trim_mean(scores.reshape(21, 4), 0.25, axis=0)
    np.testing.assert_allclose(curves.iqm(scores, axis=(0, 1)), pooled)


def test_a_summary_keeps_the_steps():
    scores = np.array([[1.0, 10], [2, 20], [3, 30], [4, 40], [50, 0]])  # [seed, step]
    found = curves.summary(scores)
    np.testing.assert_array_equal(found.median, [3, 20])
    np.testing.assert_array_equal(found.iqm, [3, 20])
    np.testing.assert_array_equal(found.lower, [2, 10])
    np.testing.assert_array_equal(found.upper, [4, 30])


def test_resampling_stays_within_tasks():
    """Seeds of a task are alike here, so that no resample can differ from the scores."""
    scores = np.array([[1.0, 1, 1], [2, 2, 2]])
    low, high = curves.bootstrap(lambda x: x[:, 0], scores, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(low, [1, 2])
    np.testing.assert_array_equal(high, [1, 2])


def test_whole_runs_are_resampled():
    """Scores [task, seed, step]: a seed brings all of its steps."""
    scores = np.stack([np.arange(5.0), 10 * np.arange(5.0)], -1)[None]

    def off(x):
        return np.abs(10 * x[..., 0] - x[..., 1]).max()

    low, high = curves.bootstrap(off, scores, rng=np.random.default_rng(0), resamples=50)
    assert low == high == 0.0


def test_the_interval_of_a_mean_is_the_binomials():
    """The mean of n resampled zeros and ones is a binomial share, whose quantiles are known."""
    scores = np.repeat([0.0, 1.0], 20)[None]
    low, high = curves.bootstrap(np.mean, scores, rng=np.random.default_rng(0), resamples=4000)
    expected = stats.binom(40, 0.5).ppf([0.025, 0.975]) / 40
    np.testing.assert_allclose([low, high], expected, atol=0.026)


def test_the_iqms_interval_holds_it_and_narrows_with_seeds():
    rng = np.random.default_rng(0)
    few, many = rng.standard_normal((2, 5, 3)), rng.standard_normal((2, 80, 3))
    widths = []
    for scores in (few, many):
        low, high = curves.iqm_interval(scores, rng=rng, resamples=300)
        center = curves.iqm(scores, axis=(0, 1))
        assert np.all(low <= center) and np.all(center <= high)
        widths.append(high - low)
    assert np.all(widths[1] < widths[0])


def test_probability_of_improvement_by_hand():
    ours, theirs = np.array([[1.0, 3.0], [5.0, 5.0]]), np.array([[0.0, 1.0, 4.0], [5.0, 6.0, 6.0]])
    # Task 1: 1 beats 0, ties 1; 3 beats 0 and 1. Task 2: both tie 5, and lose twice.
    expected = np.mean([(1 + 0.5 + 2) / 6, (0.5 + 0.5) / 6])
    assert curves.probability_of_improvement(ours, theirs) == pytest.approx(expected)
    assert curves.probability_of_improvement(theirs, ours) == pytest.approx(1 - expected)


def test_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((1, 8)), rng.standard_normal((1, 6))
    expected = stats.mannwhitneyu(ours[0], theirs[0]).statistic / 48
    assert curves.probability_of_improvement(ours, theirs) == pytest.approx(expected)


def test_probability_of_improvement_has_an_interval():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((3, 10)) + 0.5, rng.standard_normal((3, 8))
    low, high = curves.bootstrap(
        curves.probability_of_improvement, ours, theirs, rng=rng, resamples=300
    )
    assert 0 < low < curves.probability_of_improvement(ours, theirs) < high < 1


def test_too_few_runs_have_no_interval():
    values = np.arange(9.0)
    assert curves.mean_interval(values[:2]) is None
    assert curves.mean_interval(values, least=10) is None
    low, high = curves.mean_interval(values)
    assert values.min() < low < values.mean() < high < values.max()
    again = curves.mean_interval(np.stack([values, values], 1))
    np.testing.assert_array_equal(again, [[low, low], [high, high]])


@pytest.mark.parametrize(
    "reference, values, least_span",
    [(1000.0, [980.0, 1020.0], 500), (0.0, [0.0, 2000.0], 2000), (None, [-3.0, 1.0], 4)],
)
def test_axes_begin_at_the_reference_so_that_noise_looks_like_noise(reference, values, least_span):
    bottom, top = curves.limits(reference, np.array([*values, np.nan]))
    assert bottom <= min(values) and top >= max(values) and top - bottom >= least_span
    assert bottom <= (reference or 0.0) <= top
