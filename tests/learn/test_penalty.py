"""What a scheme adds to the loss, and does between updates: its gradients and its measures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lorasa_jax.learn import agent_step, team
from lorasa_jax.learn.team import Role
from lorasa_jax.sharing import Bank, Scheme
from lorasa_jax.sharing.scheme import When

KEY = jax.random.key(0)
GRADIENTS = {"common": jnp.array([[4.0, 8.0]]), "own": jnp.array([[2.0], [6.0], [0.0]])}
COUNTS = jnp.array([2.0, 2.0, 4.0])


def penalty(trees, key):
    """Half of all squares, times what the scheme remembers."""
    del key
    squares = sum(jnp.square(trees[name]).sum() for name in ("common", "own"))
    return 0.5 * trees["factor"][0] * squares, {"squares": squares}


def after_update(trees, opt_state, reports, when, key):
    del key
    factor = trees["factor"] + reports["policy_loss"] * when.share
    return {**trees, "factor": factor}, opt_state, {"factor": factor[0]}


def role(**hooks):
    everyone = Bank((0, 0, 0))
    banks = {"common": everyone, "own": Bank((0, 1, 2)),
             "factor": everyone._replace(trained=False, memory=True)}  # fmt: skip
    return Role(None, Scheme(banks, None, None, None, **hooks), optax.sgd(1.0), 0)


TREES = {
    "common": jnp.array([[1.0, 2.0]]), "own": jnp.array([[1.0], [2.0], [3.0]]),
    "factor": jnp.array([0.5]),
}  # fmt: skip


@pytest.fixture(scope="module")
def regular():
    side = role(penalty=penalty, after_update=after_update)
    return side, team.start(side, TREES)


def test_a_step_is_of_the_mean_loss_plus_the_penalty(regular):
    side, learner = regular
    extra, measures = team.penalty(side, learner.banks, KEY)
    assert set(extra) == {"common", "own"} and float(measures["squares"]) == 19.0
    after, norm = team.step(side, learner, GRADIENTS, COUNTS, None, extra)
    # means over 8, and over 2, 2 and 4 samples, plus half of the weight itself
    np.testing.assert_allclose(after.banks["common"], [[1 - (0.5 + 0.5), 2 - (1.0 + 1.0)]])
    np.testing.assert_allclose(
        after.banks["own"], [[1 - (1 + 0.5)], [2 - (3 + 1)], [3 - (0 + 1.5)]]
    )
    np.testing.assert_allclose(norm, 4.0)
    assert after.banks["factor"] is learner.banks["factor"]


def test_an_agents_step_has_its_own_part_of_the_penalty(regular):
    side, learner = regular
    extra, _ = team.penalty(side, learner.banks, KEY)
    gradient = {"common": GRADIENTS["common"][0], "own": GRADIENTS["own"][1]}
    agent, count = jnp.asarray(1), jnp.float32(2.0)
    after, _ = agent_step.step_agent(side, learner, gradient, agent, count, None, extra)
    np.testing.assert_allclose(after.banks["common"], [[1 - (2 + 0.5), 2 - (4 + 1.0)]])
    np.testing.assert_allclose(after.banks["own"], [[1], [2 - (3 + 1)], [3]])


def test_without_a_penalty_nothing_is_added_or_reported():
    side = role()
    assert team.penalty(side, TREES, KEY) == (None, {})
    learner = team.start(side, TREES)
    assert team.after_update(side, learner, {}, None, KEY) == (learner, {})
    plain, _ = team.step(side, learner, GRADIENTS, COUNTS)
    np.testing.assert_allclose(plain.banks["own"], [[0.0], [-1.0], [3.0]])


def test_between_updates_a_scheme_sees_the_report_and_how_far_the_phase_is(regular):
    side, learner = regular
    when = When(jnp.asarray(3), 4)
    after, measures = team.after_update(side, learner, {"policy_loss": 2.0}, when, KEY)
    assert float(after.banks["factor"][0]) == float(measures["factor"]) == 2.0


def test_measures_of_the_critic_are_told_apart():
    assert team.named({"a": 1}, {"a": 2}) == {"a": 1, "critic_a": 2}
