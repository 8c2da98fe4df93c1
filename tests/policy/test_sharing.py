import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn import team
from lorasa_jax.learn.team import Role, forward
from lorasa_jax.policy.lora import LoraSpec
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.policy.sharing import (
    TABLE,
    Bank,
    adapted,
    agent_counts,
    gather,
    grouped,
    nps,
    ps,
)

AGENTS, TIME, ENVS = 3, 4, 2
SPEC = LoraSpec(rank=2, alpha=2.0)
NETWORK = RecurrentNetwork({"logits": (3, 0.01, 0.0)}, {}, 8)
SCHEMES = {
    "ps": ps(AGENTS),
    "nps": nps(AGENTS),
    "groups": grouped((1, 0, 1)),
    "ps_lora": adapted(ps(AGENTS), SPEC),
    "groups_lora": adapted(grouped((1, 0, 1)), SPEC),
}


def fresh(key):
    return parameters(NETWORK, key, 5)


@pytest.fixture(scope="module")
def banks():
    """Random banks of every scheme, of the shapes that its init gives."""
    rng = np.random.default_rng(0)

    def random(scheme):
        shapes = jax.eval_shape(lambda key: scheme.init(key, fresh), jax.random.key(0))
        return jax.tree.map(lambda x: jnp.float32(0.5 * rng.standard_normal(x.shape)), shapes)

    return {name: random(scheme) for name, scheme in SCHEMES.items()}


@pytest.fixture(scope="module")
def inputs():
    carry = jax.random.normal(jax.random.key(0), (ENVS, AGENTS, 8))
    x = jax.random.normal(jax.random.key(1), (TIME, ENVS, AGENTS, 5))
    return carry, x, jnp.zeros((TIME, ENVS), bool).at[2, 1].set(True)


def agents_own(weights, i):
    return jax.tree.map(
        lambda axis, leaf: leaf if axis is None else leaf[i],
        weights[1], weights[0], is_leaf=lambda axis: axis is None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("index", "axis", "rows"),
    [((0, 0, 0), None, 0), ((0, 1, 2), 0, [0, 1, 2]), ((1, 0, 1), 0, [1, 0, 1])],
    ids=["one", "each", "groups"],
)
def test_gather_gives_every_agent_its_entry(index, axis, rows):
    bank = {"w": jnp.arange(12.0).reshape(3, 2, 2), "b": jnp.arange(3.0)}
    tree, axes = gather(bank, index)
    assert axes == {"w": axis, "b": axis}
    for name in bank:
        np.testing.assert_array_equal(tree[name], np.asarray(bank[name])[rows])


@pytest.mark.parametrize("name", SCHEMES)
def test_vmapped_agents_equal_a_python_loop(name, banks, inputs):
    carry, x, first = inputs
    weights = SCHEMES[name].weights(banks[name])
    last, outputs = forward(NETWORK, weights, carry, x, first, agent_axis=2)
    apply = jax.jit(lambda params, carry, x: NETWORK.apply({"params": params}, carry, x, first))
    for i in range(AGENTS):
        own = agents_own(weights, i)
        expected_last, expected = apply(own, carry[:, i], x[:, :, i])
        np.testing.assert_allclose(last[:, i], expected_last, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            outputs["logits"][:, :, i], expected["logits"], rtol=1e-4, atol=1e-4
        )


def test_agents_share_weights_exactly_as_their_scheme_says(banks):
    together = {
        name: [
            np.array_equal(*(agents_own(SCHEMES[name].weights(banks[name]), k)["linear_2"]["kernel"]
                             for k in pair))
            for pair in ((0, 1), (0, 2))
        ]
        for name in SCHEMES
    }  # fmt: skip
    assert together == {
        "ps": [True, True],
        "nps": [False, False],
        "groups": [False, True],
        "ps_lora": [False, False],
        "groups_lora": [False, False],
    }


def test_an_agents_loss_has_no_gradient_to_anothers_adapter(banks, inputs):
    carry, x, first = inputs
    scheme, trees = SCHEMES["ps_lora"], banks["ps_lora"]

    def loss(adapters, i):
        weights = scheme.weights({**trees, "adapters": adapters})
        _, outputs = forward(NETWORK, weights, carry, x, first, agent_axis=2)
        return jnp.square(jnp.take(outputs["logits"], i, axis=2)).sum()

    gradient = jax.jit(jax.grad(loss))
    for i in range(AGENTS):
        for leaf in jax.tree.leaves(gradient(trees["adapters"], i)):
            np.testing.assert_array_equal(np.delete(leaf, i, axis=0), 0.0)
            assert np.abs(leaf[i]).max() > 0.0


def test_a_frozen_bank_has_no_optimiser_state_and_never_changes(banks):
    scheme, trees = SCHEMES["ps_lora"], banks["ps_lora"]
    role = Role(NETWORK, scheme, team.adam(0.1, 10.0), 5)
    learner = team.start(role, trees)
    assert set(learner.opt_state) == {"adapters"}
    step = jax.jit(lambda learner, gradient: team.step(role, learner, gradient, jnp.ones(AGENTS)))
    for _ in range(3):
        trained, frozen = team.split(role, learner.banks)
        assert (set(trained), set(frozen)) == ({"adapters"}, {"net"})
        learner, _ = step(learner, jax.tree.map(jnp.ones_like, trained))
    jax.tree.map(np.testing.assert_array_equal, learner.banks["net"], trees["net"])
    for new, old in zip(
        jax.tree.leaves(learner.banks["adapters"]), jax.tree.leaves(trees["adapters"]), strict=True
    ):
        assert np.all(np.asarray(new != old))


@pytest.mark.parametrize("base", ["ps", "groups"])
def test_adopt_keeps_the_net_and_adds_fresh_adapters(base, banks):
    adopted = SCHEMES[f"{base}_lora"].adopt(jax.random.key(4), banks[base])
    jax.tree.map(np.testing.assert_array_equal, adopted["net"], banks[base]["net"])
    for adapter in adopted["adapters"].values():
        np.testing.assert_array_equal(adapter["a"], 0.0)
        assert adapter["b"].shape[0] == AGENTS


def test_init_draws_a_different_network_for_every_entry():
    kernels = nps(AGENTS).init(jax.random.key(0), fresh)["net"]["linear_2"]["kernel"]
    products = np.einsum("edk,edl->ekl", kernels, kernels)
    np.testing.assert_allclose(products, np.tile(2 * np.eye(8), (AGENTS, 1, 1)), atol=1e-5)
    assert len({kernel.tobytes() for kernel in np.asarray(kernels)}) == AGENTS


def test_agent_counts_adds_up_the_agents_of_each_entry():
    per_agent = jnp.array([1.0, 10.0, 100.0])
    for index, expected in (((0, 0, 0), [111]), ((0, 1, 2), [1, 10, 100]), ((1, 0, 1), [10, 101])):
        np.testing.assert_array_equal(agent_counts(Bank(index), per_agent), expected)


def test_table_names_phases_and_critics_of_the_paper():
    entries = {
        name: (
            [{bank: (b.index, b.trained) for bank, b in phase.banks.items()} for phase in actor],
            critic.banks["net"].index,
        )
        for name, (actor, critic) in ((name, make(3, SPEC)) for name, make in TABLE.items())
    }
    one, each = (0, 0, 0), (0, 1, 2)
    assert entries["ps"] == ([{"net": (one, True)}], one)
    assert entries["nps"] == ([{"net": (each, True)}], each)
    lora = {"net": (one, False), "adapters": (each, True)}
    assert entries["ps_lora"] == ([{"net": (one, True)}, lora], one)
