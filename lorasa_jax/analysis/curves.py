"""Statistics over seeds and tasks that suit a small number of runs (Agarwal et al. 2021).

Scores are arrays [seed, ...], such as [seed, step], or [task, seed, ...]; what comes after the
seeds is kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

QUARTER = 0.25


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
