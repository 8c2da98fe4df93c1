"""The geometry of agents' deltas: how many directions they use, and whether they share them.

Functions take one layer's matrices [agent, d, k], see `weights.matrices`, in the network's
layout x W: the column space, in d dimensions, is what a delta reads from the layer's input; the
row space, in k dimensions, is what it writes to the output. Transpose to ask about rows.
"""

import numpy as np

from lorasa_jax.analysis.weights import Matrices, ordered

TOLERANCE = 1e-5  # of the largest singular value: products in single precision are no better


def by_layer(values: Matrices) -> np.ndarray:
    """[agent, layer] out of {layer: [agent]}, such as norms; layers in the network's order."""
    return np.stack([np.asarray(x, float) for x in ordered(values).values()], axis=-1)


def effective_rank(matrices: np.ndarray) -> np.ndarray:
    """[...]: exp of the entropy of the normalised singular values (Roy and Vetterli 2007).

    1 for one direction, n for n equally strong ones; 0 for a matrix of zeros.
    """
    singular = np.linalg.svd(np.asarray(matrices, float), compute_uv=False)
    total = singular.sum(-1, keepdims=True)
    share = singular / np.where(total > 0, total, 1.0)
    entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), axis=-1)
    return np.where(total[..., 0] > 0, np.exp(entropy), 0.0)


def numerical_rank(matrices: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """[...]: singular values above `tolerance` times the largest one."""
    singular = np.linalg.svd(np.asarray(matrices, float), compute_uv=False)
    return np.sum(singular > tolerance * singular[..., :1], axis=-1)


def column_basis(matrix: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """An orthonormal basis [d, rank] of the column space of a matrix [d, k]."""
    left, singular, _ = np.linalg.svd(np.asarray(matrix, float), full_matrices=False)
    return left[:, singular > tolerance * singular[0]]


def principal_angles(a: np.ndarray, b: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Angles in radians, ascending, between the column spaces of a [d, k] and b [d, l].

    There are as many as the smaller rank has dimensions (Bjorck and Golub 1973): small angles
    come from sines, which cosines are blind to.
    """
    one, other = column_basis(a, tolerance), column_basis(b, tolerance)
    if one.shape[1] < other.shape[1]:
        one, other = other, one
    left, cosines, right = np.linalg.svd(one.T @ other, full_matrices=False)
    vectors = one @ left, other @ right.T
    sines = np.linalg.norm(vectors[1] - vectors[0] * cosines, axis=0)
    return np.arctan2(sines, np.clip(cosines, 0.0, None))


def overlap(matrices: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """[agent, agent], in [0, 1]: mean squared cosine of two deltas' principal angles.

    1 where one column space holds the other, 0 where they are orthogonal or one delta is zero
    (Hu et al. 2021, Sec. 7.2); two random spaces of rank r in d dimensions have r / d.
    """
    bases = [column_basis(matrix, tolerance) for matrix in np.asarray(matrices, float)]

    def pair(a, b):
        return np.sum(np.square(a.T @ b)) / max(1, min(a.shape[1], b.shape[1]))

    return np.array([[pair(a, b) for b in bases] for a in bases])


def cosines(matrices: np.ndarray) -> np.ndarray:
    """[agent, agent]: cosines of deltas as vectors of entries; 0 where one of them is zero."""
    rows = np.asarray(matrices, float).reshape(len(matrices), -1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1.0)
    return rows @ rows.T
