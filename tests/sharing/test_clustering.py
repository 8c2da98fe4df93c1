import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.sharing import clustering


def planted(groups, spread=0.05, seed=0):
    """Latents [agent, 4] around one far-off point a group."""
    rng = np.random.default_rng(seed)
    centres = 3.0 * rng.normal(size=(max(groups) + 1, 4))
    return centres[list(groups)] + spread * rng.normal(size=(len(groups), 4))


@pytest.mark.parametrize("groups", [(0, 1, 0, 1), (0, 0, 1, 2, 2), (0, 1, 1), (0, 1, 2, 0, 1, 2)])
def test_planted_groups_are_found(groups):
    assert clustering.cluster(planted(groups)) == groups


def test_groups_are_numbered_as_agents_meet_them():
    assert clustering.renumbered((2, 2, 0, 5)) == (0, 0, 1, 2)


def test_two_agents_cannot_be_clustered():
    with pytest.raises(ValueError, match="2 agents cannot be clustered"):
        clustering.cluster(np.zeros((2, 4)))


def test_agents_in_one_point_are_one_group():
    assert clustering.cluster(np.zeros((4, 3))) == (0, 0, 0, 0)


@pytest.mark.full
def test_agents_whose_actions_lead_elsewhere_are_told_apart():
    """Agents 0 and 2 move one way with the same action, 1 and 3 the other."""
    rng = np.random.default_rng(0)
    agent = np.repeat(np.arange(4), 1500)
    obs = rng.normal(size=(6000, 3))
    action = rng.uniform(-1, 1, (6000, 1))
    way = np.where(agent % 2, -1.0, 1.0)[:, None]
    data = clustering.Experience(*map(jnp.asarray, (agent, obs, action, obs + 2.0 * way)))
    embedded = clustering.embed(jax.random.key(0), data, 4)
    assert clustering.cluster(embedded) == (0, 1, 0, 1)
    np.testing.assert_array_equal(embedded, clustering.embed(jax.random.key(0), data, 4))
