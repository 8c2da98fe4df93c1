import numpy as np
import pytest

from lorasa_jax.analysis import adapters


def planted(singular, seed=0, d=6, k=5):
    """A matrix of given singular values."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (d, k))
    return left[:, : len(singular)] * singular @ right[: len(singular)]


def test_effective_rank_of_planted_singular_values():
    matrices = np.stack([planted([3.0, 3.0]), planted([7.0]), planted([4.0, 2.0, 2.0])])
    expected = [2.0, 1.0, np.exp(0.5 * np.log(2) + 2 * 0.25 * np.log(4))]
    np.testing.assert_allclose(adapters.effective_rank(matrices), expected, rtol=1e-9)
    assert adapters.effective_rank(np.zeros((4, 3))) == 0.0


def test_numerical_rank_ignores_what_rounding_leaves():
    matrices = np.stack([planted([3.0, 1.0]), planted([3.0, 1e-7]), np.zeros((6, 5))])
    np.testing.assert_array_equal(adapters.numerical_rank(matrices), [2, 1, 0])
    product = np.float32(planted([3.0, 1.0])) @ np.float32(np.eye(5))
    assert adapters.numerical_rank(product) == 2


def test_principal_angles_of_planted_planes():
    e = np.eye(4)
    a = np.stack([e[0], e[1]], -1)
    turned = np.cos(0.3) * e[1] + np.sin(0.3) * e[2]
    found = adapters.principal_angles(a, np.stack([2 * e[0] + e[0], e[0] - 5 * turned], -1))
    np.testing.assert_allclose(found, [0.0, 0.3], atol=1e-12)
    orthogonal = np.stack([e[2], e[3]], -1)
    np.testing.assert_allclose(adapters.principal_angles(a, orthogonal), np.pi / 2)
    np.testing.assert_allclose(adapters.principal_angles(a, e[:, 2:3] + e[:, 1:2]), np.pi / 4)


def test_principal_angles_are_scipys():
    from scipy.linalg import subspace_angles

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 3)), rng.standard_normal((9, 5))
    np.testing.assert_allclose(adapters.principal_angles(a, b), subspace_angles(a, b)[::-1])


def test_small_angles_are_not_lost_to_rounding():
    e = np.eye(3)
    found = adapters.principal_angles(e[:, :1], e[:, :1] + 1e-9 * e[:, 1:2])
    np.testing.assert_allclose(found, [1e-9], rtol=1e-6)


def test_overlap_of_planted_subspaces():
    e = np.eye(4)
    column = lambda *vectors: np.stack(vectors, -1) @ np.ones((len(vectors), 1))  # noqa: E731
    wide = np.stack([e[0], e[1]], -1) @ np.array([[1.0, 2.0], [3.0, 4.0]])
    line = np.concatenate([column(e[0], e[2]), np.zeros((4, 1))], -1)
    found = adapters.overlap(np.stack([wide, line, np.zeros((4, 2))]))
    np.testing.assert_allclose(found, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]], atol=1e-12)


def test_cosines_of_deltas():
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = adapters.cosines(np.stack([one, -2 * one, one[::-1], 0 * one]))
    expected = [[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_layers_come_in_the_networks_order():
    found = adapters.by_layer({"gru_h_5": [5, 6], "gru_x_4": [3, 4], "linear_1": [1, 2]})
    np.testing.assert_array_equal(found, [[1, 3, 5], [2, 4, 6]])


def test_a_policys_deltas_have_their_adapters_rank(build, random_banks):
    from lorasa_jax.analysis import weights

    team = build("switch_at=200", "sharing.rank=3", sharing="ps_lora")
    deltas = weights.matrices(weights.deltas(team.actor.scheme, random_banks(team.actor)))
    ranks = {layer: adapters.numerical_rank(x).tolist() for layer, x in deltas.items()}
    assert ranks.pop("linear_7") == [2, 2]
    assert set(map(tuple, ranks.values())) == {(3, 3)}
    effective = adapters.effective_rank(deltas["linear_2"])
    assert np.all((effective > 1) & (effective <= 3)), pytest.approx(effective)
