import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.analysis import gradients
from lorasa_jax.learn import ppo
from lorasa_jax.training.teams import build_teams


@pytest.fixture(scope="module")
def played(configure, random_state):
    """(train state, team, hyperparameters, batch) of full sharing with random networks."""
    config = configure("env=synchronisation_2", "env.agent_ids=false", "algo.entropy_coef=0.0")
    team, hp = build_teams(config)[0], config.algo_of(-1)
    state = random_state(team, hp)
    return state, team, hp, jax.jit(lambda s: gradients.experience(s, team, hp))(state)


@pytest.fixture(scope="module")
def gradient_of(played):
    state, team, hp, _ = played
    return jax.jit(lambda batch: gradients.policy_gradients(state, team, hp, batch))


def with_agent_1_like_agent_0(batch):
    """The batch with agent 0's samples in the place of agent 1's."""

    def twice(name):
        x = getattr(batch, name)
        axis = 1 if name.endswith("carry") else 2
        return jnp.repeat(jnp.take(x, jnp.array([0]), axis=axis), 2, axis=axis)

    filled = [name for name in batch._fields if getattr(batch, name) is not None]
    names = [name for name in filled if name not in ("first", "others")]
    return batch._replace(**{name: twice(name) for name in names})


@pytest.mark.full
def test_agents_of_equal_experience_pull_the_same_way(played, gradient_of):
    found = gradients.cosines(gradient_of(with_agent_1_like_agent_0(played[3])))
    np.testing.assert_allclose(found, np.ones((2, 2)), atol=1e-5)


def test_agents_of_opposite_advantages_pull_apart(played, gradient_of):
    batch = with_agent_1_like_agent_0(played[3])
    sign = jnp.array([1.0, -1.0])[None, None, :, None]
    gradient = gradient_of(batch._replace(advantage=sign * batch.advantage))
    np.testing.assert_allclose(gradients.cosines(gradient)[0, 1], -1.0, atol=1e-5)
    for layer in gradients.cosines_by_layer(gradient).values():
        np.testing.assert_allclose(layer, [[1, -1], [-1, 1]], atol=1e-5)


def test_gradients_sum_to_that_of_the_shared_network(played, gradient_of):
    """Weighted by samples, agents' gradients add up to what an update sums for one backbone."""
    state, team, hp, batch = played
    critic = team.critic.scheme.weights(state.critic.banks)
    whole, _ = jax.jit(
        lambda banks: ppo.gradients(
            lambda banks: (team.actor.scheme.weights(banks), critic),
            banks, state.value_norm, batch, team, hp, hp.clip,
        )
    )(state.actor.banks)  # fmt: skip
    samples = hp.num_envs * hp.rollout_length
    found = jax.tree.map(lambda x: samples * x.sum(0), gradient_of(batch))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-3, atol=1e-3), found, whole["net"]
    )


def test_cosines_by_hand():
    tree = {"linear_1": {"kernel": jnp.array([[[3.0, 0.0]], [[0.0, 2.0]], [[0.0, 0.0]]])}}
    tree["linear_1"]["bias"] = jnp.array([[4.0], [0.0], [0.0]])
    expected = np.diag([1.0, 1.0, 0.0])
    np.testing.assert_allclose(gradients.cosines(tree), expected, atol=1e-6)
    tree["linear_1"]["bias"] = jnp.array([[4.0], [2.0], [0.0]])
    cosine = 4 * 2 / (5 * np.sqrt(8))
    np.testing.assert_allclose(gradients.cosines(tree)[0, 1], cosine, rtol=1e-6)
    np.testing.assert_allclose(gradients.cosines_by_layer(tree)["linear_1"], expected, atol=1e-6)
