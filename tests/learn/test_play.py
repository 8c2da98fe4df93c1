"""Evaluation on environments whose own time steps do not say that an episode has ended."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn import play
from lorasa_jax.sharing import ps

LIMIT, FAR = 3, 9


@pytest.fixture(scope="module", params=[bool, float], ids=["won bool", "won float"])
def late(request, counter, make_team, make_state):
    """A counter of max_steps 3 that goes on to 9 steps, and was won from its third step on."""

    class Late(counter):
        def _timestep(self, state, reward, terminated):
            timestep = super()._timestep(state, reward, terminated)
            return timestep._replace(
                terminated=jnp.zeros((), bool),
                truncated=state.steps >= FAR,
                info={"won": (state.steps >= LIMIT).astype(request.param)},
            )

    team = make_team(Late(max_steps=LIMIT), ps(2), ps(2))
    weights = team.actor.scheme.weights(make_state(team, 1).actor.banks)
    return SimpleNamespace(team=team, weights=weights)


def test_evaluation_ends_after_max_steps(late):
    results = jax.jit(lambda key: play.play(key, late.team, late.weights, episodes=4))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(results.lengths, [LIMIT] * 4)
    np.testing.assert_array_equal(results.won, [1.0] * 4)
    assert results.won.dtype == jnp.float32


def test_a_recording_ends_after_max_steps_with_what_evaluation_earns(late):
    recorded = jax.jit(lambda key: play.record(key, late.team, late.weights))(jax.random.key(0))
    played = jax.jit(lambda key: play.play(key, late.team, late.weights, episodes=1))(
        jax.random.key(1)
    )
    assert recorded.length == LIMIT and recorded.rewards.shape == (LIMIT,)
    np.testing.assert_array_equal(recorded.states.steps, np.arange(LIMIT + 1))
    np.testing.assert_allclose(recorded.rewards.sum(), played.returns[0], rtol=1e-6)
