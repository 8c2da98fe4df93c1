import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lorasa_jax.learn import team
from lorasa_jax.learn.team import Role
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.sharing import grouped, nps, ps

AGENTS = 3
COUNTS = jnp.array([2.0, 4.0, 8.0])
SCHEMES = {"ps": ps(AGENTS), "nps": nps(AGENTS), "groups": grouped((1, 0, 1))}
SAMPLES = {"ps": [14.0], "nps": [2.0, 4.0, 8.0], "groups": [4.0, 10.0]}


def role(name, optimiser):
    return Role(None, SCHEMES[name], optimiser, 0)


def tree(entries, seed):
    rng = np.random.default_rng(seed)
    return {
        "net": {
            "kernel": jnp.float32(rng.standard_normal((entries, 2, 3))),
            "bias": jnp.float32(rng.standard_normal((entries, 3))),
        }
    }


def entry(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


@pytest.mark.parametrize("name", SCHEMES)
def test_an_entrys_gradient_is_the_mean_over_the_samples_of_its_agents(name):
    side = role(name, optax.sgd(1.0))
    banks = tree(len(SAMPLES[name]), 0)
    gradients = jax.tree.map(lambda x: 280.0 * jnp.ones_like(x), banks)
    learner = team.start(side, banks)
    learner, _ = jax.jit(lambda learner: team.step(side, learner, gradients, COUNTS))(learner)
    for i, samples in enumerate(SAMPLES[name]):
        expected = jax.tree.map(lambda x, n=samples: x - 280.0 / n, entry(banks, i))
        got = entry(learner.banks, i)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, expected)


@pytest.mark.parametrize("name", SCHEMES)
def test_step_equals_plain_optax_on_every_entry_in_turn(name):
    side, plain = role(name, team.adam(0.01, 1.0)), team.adam(0.01, 1.0)
    banks = tree(len(SAMPLES[name]), 0)
    learner = team.start(side, banks)
    alone = [entry(banks["net"], i) for i in range(len(SAMPLES[name]))]
    states = [plain.init(params) for params in alone]
    step = jax.jit(lambda learner, gradients: team.step(side, learner, gradients, COUNTS))
    update = jax.jit(plain.update)
    for t in range(3):
        gradients = jax.tree.map(lambda x, t=t: 10.0 ** (t - 1) * x, tree(len(alone), t + 1))
        learner, norm = step(learner, gradients)
        norms = []
        for i, samples in enumerate(SAMPLES[name]):
            mean = jax.tree.map(lambda x, n=samples: x / n, entry(gradients["net"], i))
            norms.append(optax.global_norm(mean))
            updates, states[i] = update(mean, states[i])
            alone[i] = optax.apply_updates(alone[i], updates)
        np.testing.assert_allclose(norm, max(norms), rtol=1e-6)
    for i, params in enumerate(alone):
        got = entry(learner.banks["net"], i)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, params
        )


def test_adam_clips_by_global_norm_and_has_epsilon_1e_5():
    gradient = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    optimiser = team.adam(1.0, 5e-5)
    updates, _ = optimiser.update(gradient, optimiser.init(gradient))
    clipped = np.array([3e-5, 4e-5])
    got = [updates["a"][0], updates["b"][0]]
    np.testing.assert_allclose(got, -clipped / (clipped + 1e-5), rtol=1e-4)


def test_a_huge_gradient_of_one_agent_leaves_the_others_updates_unchanged():
    side = role("nps", team.adam(0.01, 1.0))
    learner = team.start(side, tree(AGENTS, 0))
    gradients = tree(AGENTS, 1)
    huge = jax.tree.map(lambda x: x.at[1].multiply(1e6), gradients)
    (calm, _), (wild, norm) = (team.step(side, learner, g, COUNTS) for g in (gradients, huge))
    for i in (0, 2):
        jax.tree.map(np.testing.assert_array_equal, entry(calm, i), entry(wild, i))
    assert norm > 1e4


def test_an_agent_without_samples_stays_where_it_is():
    side = role("nps", optax.sgd(1.0))
    banks = tree(AGENTS, 0)
    gradients = jax.tree.map(lambda x: x.at[1].set(0.0), tree(AGENTS, 1))
    counts = COUNTS.at[1].set(0.0)
    learner, _ = team.step(side, team.start(side, banks), gradients, counts)
    jax.tree.map(np.testing.assert_array_equal, entry(learner.banks, 1), entry(banks, 1))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(learner))


def test_every_entry_has_its_own_optimiser_state():
    side = role("groups", optax.adam(0.1))
    state = team.start(side, tree(2, 0)).opt_state["net"][0]
    assert state.count.shape == (2,)
    assert state.mu["kernel"].shape == (2, 2, 3)


@pytest.mark.sample(1)
@pytest.mark.parametrize("steps", [4, 20])  # a short trajectory is unrolled, a long one is not
def test_shared_weights_act_and_learn_as_copies_of_them_do(steps):
    network = RecurrentNetwork({"mean": (2, 1.0, 0.0)}, {}, 8)
    params = parameters(network, jax.random.key(0), 5)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((steps, AGENTS, 6, 5)), jnp.float32)
    carry = jnp.asarray(rng.standard_normal((AGENTS, 6, 8)), jnp.float32)
    first = jnp.asarray(rng.random((steps, 6)) < 0.3)
    wanted = jnp.asarray(rng.standard_normal((steps, AGENTS, 6, 2)), jnp.float32)

    def loss(params, axis):
        copies = params if axis is None else jax.tree.map(lambda p: jnp.stack([p] * AGENTS), params)
        weights = copies, jax.tree.map(lambda _: axis, params)
        last, out = team.forward(network, weights, carry, x, first, agent_axis=1)
        return jnp.square(out["mean"] - wanted).mean(), (last, out["mean"])

    results = [jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)(params, axis)
               for axis in (None, 0)]  # fmt: skip
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731
    jax.tree.map(close, *results)
