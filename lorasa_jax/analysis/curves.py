"""Statistics over seeds and tasks that suit a small number of runs (Agarwal et al. 2021).

Scores are arrays [seed, ...], such as [seed, step], or [task, seed, ...]; what comes after the
seeds is kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

QUARTER = 0.25
# Of fewer no interval is told, and points are drawn instead of bands.
LEAST_SEEDS, LEAST_EPISODES = 3, 10


class Summary(NamedTuple):
    """Over seeds, [...]: interquartile mean, median, and lower and upper quartile."""

    iqm: np.ndarray
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def iqm(scores: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """The interquartile mean: the mean without the lowest and the highest quarter.

    At either end a quarter of the scores is left out, their number rounded down.
    """
    axes = (axis,) if isinstance(axis, int) else axis
    scores = np.moveaxis(np.asarray(scores, float), axes, range(len(axes)))
    scores = np.sort(scores.reshape(-1, *scores.shape[len(axes) :]), axis=0)
    cut = int(QUARTER * len(scores))
    return scores[cut : len(scores) - cut].mean(0)


def summary(scores: np.ndarray, axis: int | tuple[int, ...] = 0) -> Summary:
    """What to draw of scores: a line and a band, over seeds, or tasks and seeds together."""
    lower, median, upper = np.quantile(np.asarray(scores, float), [0.25, 0.5, 0.75], axis=axis)
    return Summary(iqm(scores, axis), median, lower, upper)


def bootstrap(
    statistic: Callable,
    *scores: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """The stratified percentile interval (low, high) of statistic(*scores).

    Every array is [task, seed, ...], with its own number of seeds. Seeds are drawn with
    replacement within every task, tasks never; statistic gets arrays of the same shapes. With few
    seeds the interval is too short: 3 runs have only 10 different resamples.
    """
    arrays = [np.asarray(array, float) for array in scores]
    values = np.stack([statistic(*(_resampled(x, rng) for x in arrays)) for _ in range(resamples)])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _resampled(scores, rng):
    tasks, seeds = scores.shape[:2]
    rows = rng.integers(seeds, size=(tasks, seeds))
    return scores[np.arange(tasks)[:, None], rows]


def iqm_interval(
    scores: np.ndarray, *, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the interquartile mean over all runs of scores [task, seed, ...]."""
    return bootstrap(
        lambda x: iqm(x, axis=(0, 1)), scores, rng=rng, resamples=resamples, level=level
    )


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How probably a run of ours beats one of theirs, on a task drawn at random; ties are half.

    Scores [task, seed, ...]; numbers of seeds may differ. Its interval:
    `bootstrap(probability_of_improvement, ours, theirs, rng=rng)`.
    """
    ours, theirs = np.asarray(ours, float)[:, :, None], np.asarray(theirs, float)[:, None]
    return ((ours > theirs) + 0.5 * (ours == theirs)).mean((0, 1, 2))


def mean_interval(
    values: np.ndarray, *, least: int = LEAST_SEEDS, resamples: int = 2000, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray] | None:
    """The percentile bootstrap interval (low, high) of the mean of values [run, ...] over runs.

    None of fewer than `least` runs: an interval of two is no more than the two. Always the same
    resamples, so that the same values have the same interval.
    """
    values = np.asarray(values, float)
    if len(values) < least:
        return None
    rows = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[rows].mean(1), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def limits(reference: float | None, values: np.ndarray) -> tuple[float, float]:
    """(bottom, top) of an axis of returns that begins at a reference level.

    reference: what an untrained team earns, None where it is not known, which counts as zero. The
    axis holds all values, and reaches half the reference beyond it, 0.5 at least, so that noise
    about that level looks like noise.
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    level = 0.0 if reference is None or not np.isfinite(reference) else float(reference)
    bottom = min(level, values.min(initial=level))
    top = max(values.max(initial=level), level + 0.5 * max(abs(level), 1.0))
    margin = 0.04 * (top - bottom)
    return bottom - margin, top + margin
