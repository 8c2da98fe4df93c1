"""How many weights are large: the sparsity curves of the paper's Figure 8."""

from typing import NamedTuple

import jax
import numpy as np

from lorasa_jax.analysis.weights import Matrices, deltas, matrices
from lorasa_jax.policy.networks import layer_of
from lorasa_jax.sharing import Scheme

THRESHOLDS = 100


class Curve(NamedTuple):
    """percent [threshold] of absolute weights that are at least the threshold [threshold]."""

    thresholds: np.ndarray
    percent: np.ndarray


class Sparsity(NamedTuple):
    """The curves of the shared weights and of what adapters add to them."""

    shared: Curve
    delta: Curve


def flatten(matrices_: Matrices) -> np.ndarray:
    """All entries of the network's layers in one array; a head of log-stds is none of them."""
    return np.concatenate(
        [np.asarray(x, float).ravel() for name, x in matrices_.items() if layer_of(name) == name]
    )


def curve(values: np.ndarray, thresholds: np.ndarray | None = None) -> Curve:
    """The curve of some weights, by the recipe in the caption of Figure 8.

    thresholds are by default 100, evenly spaced from the smallest to the largest absolute value,
    both included: every curve then has a scale of its own. Give some to compare curves at.
    """
    sizes = np.sort(np.abs(np.asarray(values, float)).ravel())
    if thresholds is None:
        points = np.linspace(sizes[0], sizes[-1], THRESHOLDS)
    else:
        points = np.asarray(thresholds)
    below = np.searchsorted(sizes, points, side="left")
    return Curve(points, 100.0 * (1.0 - below / sizes.size))


def sparsity(scheme: Scheme, banks: dict, thresholds: np.ndarray | None = None) -> Sparsity:
    """The curves of a scheme that adapts a backbone.

    Shared weights are the backbone's matrices, once for every network in it; deltas are the
    products A_i B_i of all agents (the caption says no more than all weights). Raises ValueError
    where the scheme has no backbone.
    """
    delta = flatten(matrices(deltas(scheme, banks)))
    shared = flatten(matrices(jax.tree.map(np.asarray, banks["net"])))
    return Sparsity(curve(shared, thresholds), curve(delta, thresholds))
