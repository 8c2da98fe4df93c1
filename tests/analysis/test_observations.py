import jax
import numpy as np
import pytest

from lorasa_jax.analysis import observations


@pytest.fixture(scope="module")
def collected(build, random_banks, constant_policies):
    team = build(sharing="nps")
    banks = constant_policies(random_banks(team.actor), linear_7=[[9.0, -9.0], [-9.0, 9.0]])
    tree, axes = team.actor.scheme.weights(banks)
    return jax.jit(
        lambda key, tree: observations.collect(key, team, (tree, axes), length=14, num_envs=3)
    )(jax.random.key(0), tree)


def test_sets_hold_what_agents_saw(collected):
    """Episodes last 10 steps; from the second on, both see the actions just played, 0 and 1."""
    assert collected.obs.shape == (14, 3, 2, 6)
    expected = np.zeros((14, 3), bool)
    expected[[0, 10]] = True
    np.testing.assert_array_equal(collected.first, expected)
    for t in range(14):
        seen = -np.ones(4) if t in (0, 10) else np.array([1, 0, 0, 1])
        np.testing.assert_array_equal(collected.obs[t, ..., :4], np.broadcast_to(seen, (3, 2, 4)))
        np.testing.assert_array_equal(collected.obs[t, 0, :, 4:], np.eye(2))
    assert collected.legal.all() and collected.active.all()
    assert collected.legal.shape == (14, 3, 2, 2)


def test_pooled_sets_lie_side_by_side(collected):
    found = observations.pooled(collected, collected._replace(obs=-collected.obs))
    assert found.obs.shape == (14, 6, 2, 6) and found.first.shape == (14, 6)
    np.testing.assert_array_equal(found.obs[:, 3:], -found.obs[:, :3])
