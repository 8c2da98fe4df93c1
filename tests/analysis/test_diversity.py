import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.analysis import diversity, policies
from lorasa_jax.analysis.distances import GAUSSIAN, jensen_shannon, total_variation
from lorasa_jax.learn.team import forward

LOGITS = np.log([[0.5, 0.5], [0.9, 0.1]])


@pytest.fixture(scope="module")
def apart(build, random_banks):
    team = build(sharing="nps")
    return team, random_banks(team.actor)


@pytest.fixture(scope="module")
def shared(build, random_banks):
    team = build(sharing="ps")
    return team, team.actor.scheme.weights(random_banks(team.actor))


def test_distances_of_planted_policies(apart, constant_policies, observed):
    team, banks = apart
    weights = team.actor.scheme.weights(constant_policies(banks, linear_7=LOGITS))
    found = diversity.distance_matrix(total_variation, team, weights, observed(team))
    np.testing.assert_allclose(found, [[0, 0.4], [0.4, 0]], atol=1e-6)
    assert diversity.snd(found) == pytest.approx(0.4, rel=1e-5)


def test_illegal_actions_and_inactive_agents_are_left_out(apart, constant_policies, observed):
    team, banks = apart
    weights = team.actor.scheme.weights(constant_policies(banks, linear_7=LOGITS))
    seen = observed(team)
    only_one = seen._replace(legal=seen.legal.at[:, :, 1, 1].set(False))
    found = diversity.distance_matrix(total_variation, team, weights, only_one)
    assert found[0, 1] == pytest.approx(0.2, rel=1e-5)  # half of what is observed leaves no choice
    living = only_one._replace(active=only_one.active.at[:, :, 1].set(False))
    found = diversity.distance_matrix(total_variation, team, weights, living)
    assert found[0, 1] == pytest.approx(0.4, rel=1e-5)


def test_gaussian_policies_are_compared_too(build, random_banks, constant_policies, observed):
    from lorasa_jax.policy.distributions import SquashedGaussian
    from lorasa_jax.policy.networks import RecurrentNetwork

    discrete = build(sharing="nps")
    kind = SquashedGaussian(1, "linear")
    network = RecurrentNetwork(kind.heads, kind.vectors, 8)
    team = discrete._replace(distribution=kind, actor=discrete.actor._replace(network=network))
    banks = constant_policies(
        random_banks(team.actor), linear_7=[[0.0], [0.3]], linear_7_log_std=[[50.0], [0.0]]
    )
    weights = team.actor.scheme.weights(banks)
    found = diversity.distance_matrix(GAUSSIAN["wasserstein_2"], team, weights, observed(team))
    assert found[0, 1] == pytest.approx(np.hypot(0.3, 0.25), rel=1e-5)


def test_shared_policies_differ_by_nothing_but_their_ids(shared, observed):
    team, weights = shared
    seen = observed(team)
    same = diversity.distance_matrix(jensen_shannon, team, weights, seen)
    assert diversity.snd(same) == 0.0
    by_id = diversity.distance_matrix(jensen_shannon, team, weights, seen, own_ids=True)
    assert diversity.snd(by_id) > 1e-3


def test_every_agents_outputs_are_those_of_its_own_network(apart, observed):
    """On what it saw itself they equal the team's forward pass, recurrent resets included."""
    team, banks = apart
    weights, seen = team.actor.scheme.weights(banks), observed(team)
    found = policies.outputs(team, weights, seen)["logits"]
    carry = team.actor.network.initial_carry(3, 2)
    _, expected = forward(team.actor.network, weights, carry, seen.obs, seen.first, agent_axis=2)
    for agent in range(2):
        np.testing.assert_allclose(
            found[agent, :, :, agent], expected["logits"][:, :, agent], rtol=1e-5, atol=1e-6
        )
    # Had the agents changed places, so would their outputs have.
    turned = seen._replace(obs=seen.obs[:, :, ::-1])
    again = policies.outputs(team, weights, turned)["logits"]
    np.testing.assert_allclose(again[:, :, :, ::-1], found, rtol=1e-5, atol=1e-6)


def test_ids_are_exchanged_for_the_acting_agents():
    obs = jnp.arange(6.0).reshape(3, 2)
    raw, standardised = jnp.eye(3), jnp.where(jnp.eye(3) > 0, 1.4, -0.7)
    for ids in (raw, standardised):
        found = policies.with_id_of(jnp.array(2), jnp.concatenate([obs, ids], -1))
        np.testing.assert_array_equal(found[:, :2], obs)
        np.testing.assert_array_equal(found[:, 2:], jnp.broadcast_to(ids[2], (3, 3)))


def test_own_ids_are_refused_where_there_are_none(build, observed):
    team = build("env.agent_ids=false")
    assert not policies.carries_ids(team.env)
    with pytest.raises(ValueError, match="agent_ids"):
        policies.outputs(team, None, observed(build()), own_ids=True)
    assert policies.carries_ids(build("env.standardise=true").env)


MATRIX = np.array([[0, 1, 5, 6], [1, 0, 4, 5], [5, 4, 0, 2], [6, 5, 2, 0]], float)


def test_snd_by_hand():
    assert diversity.snd(MATRIX) == pytest.approx((1 + 5 + 6 + 4 + 5 + 2) / 6)
    within, between = diversity.snd_by_group(MATRIX, [3, 3, 1, 1])
    assert (within, between) == (1.5, 5.0)
    assert diversity.snd_by_group(MATRIX, [0, 1, 2, 3])[0] is None


def test_silhouette_by_hand():
    # a is the distance to the partner, b the mean distance to the other pair.
    sides = [(1, 5.5), (1, 4.5), (2, 4.5), (2, 5.5)]
    expected = np.mean([(b - a) / b for a, b in sides])
    assert diversity.silhouette(MATRIX, [0, 0, 1, 1]) == pytest.approx(expected)


def test_social_entropy_by_hand():
    """Four clusters until h = 1, three until 2, two until 6, then one."""
    three = -(0.5 * np.log2(0.5) + 2 * 0.25 * np.log2(0.25))
    assert diversity.social_entropy(MATRIX) == pytest.approx(2.0 * 1 + three * 1 + 1.0 * 4)
    assert diversity.social_entropy(np.zeros((3, 3))) == 0.0


def test_pairwise_means_over_active_samples_only():
    p = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5]]])
    found = jax.jit(lambda p, active: diversity.pairwise(total_variation, p, active))
    np.testing.assert_allclose(found(p, jnp.array([True, True]))[0, 1], 0.75)
    np.testing.assert_allclose(found(p, jnp.array([False, True]))[1, 0], 0.5)
