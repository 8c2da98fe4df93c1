import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs import make
from lorasa_jax.learn import a2po, batch, mappo, returns, traces
from lorasa_jax.learn.clips import CLIPS
from lorasa_jax.learn.orders import ORDERS
from lorasa_jax.sharing import ps

GAMMA, LAMBDA, TIME = 0.9, 0.8, 7


@pytest.fixture(scope="module")
def trajectory():
    """Steps and ratios [time, 2]: one column with a termination, one with a neutralised sample."""
    rng = np.random.default_rng(0)
    continues, keeps = np.ones((TIME, 2)), np.ones((TIME, 2))
    continues[3, 0] = continues[2, 1] = keeps[2, 1] = 0.0
    arrays = rng.normal(size=(TIME, 2)), rng.normal(size=(TIME, 2)), continues, keeps
    ratio = np.exp(0.5 * rng.normal(size=(TIME, 2)))
    return returns.Steps(*map(jnp.float32, arrays)), jnp.float32(ratio)


def traced(trajectory, ratio, trace):
    return traces.off_policy(trajectory, ratio, gamma=GAMMA, gae_lambda=LAMBDA, trace=trace)


@pytest.mark.parametrize("trace", ["capped", "running", "none"])
def test_ratios_of_one_give_gae(trajectory, trace):
    steps, ratio = trajectory
    gae, following = np.zeros((TIME, 2)), np.zeros(2)
    for t in reversed(range(TIME)):
        reach = GAMMA * LAMBDA * steps.continues[t]
        gae[t] = following = steps.keeps[t] * (steps.errors[t] + reach * following)
    np.testing.assert_allclose(traced(steps, jnp.ones_like(ratio), trace), gae, rtol=1e-4)


@pytest.mark.parametrize("trace, extra", [("capped", 1.0), ("squared", LAMBDA)])
def test_capped_traces_against_a_loop(trajectory, trace, extra):
    steps, ratio = trajectory
    expected, following = np.zeros((TIME, 2)), np.zeros(2)
    for t in reversed(range(TIME)):
        reach = GAMMA * LAMBDA * extra * np.minimum(1, ratio[t + 1]) if t + 1 < TIME else 0.0
        following = steps.keeps[t] * (steps.errors[t] + reach * steps.continues[t] * following)
        expected[t] = following
    np.testing.assert_allclose(traced(steps, ratio, trace), expected, rtol=1e-4, atol=1e-5)


def test_running_traces_against_their_definition(trajectory):
    steps, ratio = (jax.tree.map(np.asarray, part) for part in trajectory)
    expected = np.zeros((TIME, 2))
    for column in range(2):
        for start in range(TIME):
            product, weight = 1.0, steps.keeps[start, column]
            expected[start, column] = weight * steps.errors[start, column]
            for t in range(start + 1, TIME):
                product = min(1.0, ratio[t, column] * product)
                weight *= GAMMA * LAMBDA * steps.continues[t - 1, column] * steps.keeps[t, column]
                expected[start, column] += weight * product * steps.errors[t, column]
    np.testing.assert_allclose(traced(*trajectory, "running"), expected, rtol=1e-4, atol=1e-5)


def test_the_way_to_time_and_back():
    x = np.arange(2 * 3 * 4 * 5 * 2.0).reshape(12, 5, 2, 2)  # time, env, agent, feature
    blocks = batch.from_time(jnp.asarray(x), blocks=2, clock=3)
    assert blocks.shape == (2, 3, 2, 10, 2)
    np.testing.assert_array_equal(batch.to_time(blocks, 5), x)


def test_semi_greedy_takes_the_best_and_then_anyone():
    score = jnp.array([0.1, 3.0, 2.0, 0.5, 1.0])
    orders = np.array(jax.vmap(lambda key: ORDERS["semi_greedy"](key, score))(
        jax.random.split(jax.random.key(0), 200)))  # fmt: skip
    assert (np.sort(orders, axis=1) == np.arange(5)).all()
    assert (orders[:, 0] == 1).all()
    assert set(orders[:, 1]) == {0, 2, 3, 4}
    for order in orders:
        assert order[2] == max(set(range(5)) - set(order[:2]), key=lambda i: score[i])


def test_clips_widen_from_half_to_whole():
    widening = [float(CLIPS["widening"](0.2, k, 4)) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(widening, [0.125, 0.15, 0.175, 0.2])
    assert CLIPS["tight"](0.2, 3, 8) == pytest.approx(0.1125)
    assert CLIPS["constant"](0.2, 3, 8) == 0.2


@pytest.mark.full
@pytest.mark.parametrize("trace, others", [("capped", "clipped"), ("none", "free")])
def test_one_agent_alone_is_ppo(make_team, make_state, trace, others):
    """A2PO's and HAPPO's update of a single agent is MAPPO's."""
    env = make("probe_action_continuous")
    assert env.num_agents == 1
    team = make_team(env, ps(1), ps(1))
    state = make_state(team, 4)
    hp = a2po.A2po(
        num_envs=4, rollout_length=6, chunk_length=2, epochs=2, clip=0.2, gamma=0.9,
        gae_lambda=0.8, entropy_coef=0.01, trace=trace, others=others, loop="agent")  # fmt: skip
    ours, report, _ = jax.jit(lambda state: a2po.update(state, team, hp))(state)
    theirs, expected, _ = jax.jit(lambda state: mappo.update(state, team, hp))(state)

    def same(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)

    jax.tree.map(same, (ours.actor, ours.critic, ours.value_norm), (
        theirs.actor, theirs.critic, theirs.value_norm))  # fmt: skip
    for name in expected:
        same(report[name], expected[name])
