import jax
import numpy as np
import pytest

from lorasa_jax.analysis import swap

OPPOSITE = [[5.0, -5.0], [-5.0, 5.0]]


@pytest.fixture(scope="module")
def specialised(build, random_banks, constant_policies):
    """Two agents that always choose different actions, as their game rewards."""
    team = build(sharing="nps")
    banks = constant_policies(random_banks(team.actor), linear_7=OPPOSITE)
    return team, team.actor.scheme.weights(banks)


def returns(function, team, weights):
    return jax.jit(lambda key, tree: function(key, team, (tree, weights[1]), episodes=2))(
        jax.random.key(0), weights[0]
    )


def test_a_specialised_agent_cannot_be_replaced_by_the_other(specialised):
    found = returns(swap.swap_matrix, *specialised)
    np.testing.assert_allclose(found, [[1.0, 0.5], [0.5, 1.0]], rtol=1e-5)


def test_specialised_agents_can_trade_places_but_not_be_alike(specialised):
    np.testing.assert_allclose(returns(swap.exchange_matrix, *specialised), 1.0, rtol=1e-5)
    np.testing.assert_allclose(returns(swap.uniform_returns, *specialised), 0.5, rtol=1e-5)


def test_assignments():
    assert swap.replacements(3)[0].tolist() == [[0, 1, 2], [1, 1, 2], [2, 1, 2]]
    assert swap.replacements(3)[2].tolist() == [[0, 1, 0], [0, 1, 1], [0, 1, 2]]
    assert swap.exchanges(3)[0].tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0]]
    assert swap.uniform(2).tolist() == [[0, 0], [1, 1]]


def test_derangements_are_different_and_leave_nobody_in_place():
    assert swap.derangements(2, 16).tolist() == [[1, 0]]
    assert sorted(swap.derangements(3, 16).tolist()) == [[1, 2, 0], [2, 0, 1]]
    assert len(swap.derangements(5, 1000)) == 44
    drawn = swap.derangements(17, 16, seed=3)
    assert len(np.unique(drawn, axis=0)) == 16 and (drawn != np.arange(17)).all()
    np.testing.assert_array_equal(np.sort(drawn), np.tile(np.arange(17), (16, 1)))
    np.testing.assert_array_equal(drawn, swap.derangements(17, 16, seed=3))
    for agents, count in ((1, 1), (3, 0)):
        with pytest.raises(ValueError, match="cannot be drawn"):
            swap.derangements(agents, count)


def test_shared_weights_stay_shared(build, random_banks):
    scheme = build(sharing="mtl").actor.scheme
    tree, axes = scheme.weights(random_banks(build(sharing="mtl").actor))
    turned, same = swap.reassigned((tree, axes), np.array([1, 0]))
    assert same is axes
    np.testing.assert_array_equal(turned["linear_1"]["kernel"], tree["linear_1"]["kernel"])
    np.testing.assert_array_equal(turned["linear_7"]["kernel"], tree["linear_7"]["kernel"][::-1])
