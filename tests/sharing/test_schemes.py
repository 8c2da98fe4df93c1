import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn import team
from lorasa_jax.learn.team import Role, forward
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.sharing import (
    REGISTRY,
    Bank,
    Given,
    adapted,
    agent_counts,
    gather,
    grouped,
    nps,
    ps,
)
from lorasa_jax.sharing.spec import LoraSpec

AGENTS, TIME, ENVS = 3, 4, 2
SPEC = LoraSpec(rank=2, alpha=2.0)
RNG = np.random.default_rng(0)
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


@pytest.mark.sample(1)
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


@pytest.mark.parametrize("name", ["ps_lora", "seps_lora"])
def test_one_agents_adapter_has_no_agent_axis(name, inputs):
    """With one agent there is nothing to map over: its network is the backbone plus its delta."""
    scheme = REGISTRY.row(name).make(Given(1, SPEC, clusters=(0,))).actor_phases[-1]
    shapes = jax.eval_shape(lambda key: scheme.init(key, fresh), jax.random.key(0))
    random = jax.tree.map(lambda x: jnp.float32(RNG.standard_normal(x.shape)), shapes)
    weights = scheme.weights(random)
    assert jax.tree.leaves(weights[1]) == []
    net, adapter = (jax.tree.map(lambda x: x[0], random[bank]) for bank in ("net", "adapters"))
    for layer, parts in net.items():
        for part, x in parts.items():
            if part == "kernel":
                own = adapter[layer]
                x = x + (own["full"] if "full" in own else own["a"] @ own["b"])
            np.testing.assert_allclose(weights[0][layer][part], x, rtol=1e-5, atol=1e-5)
    carry, x, first = inputs
    last, outputs = forward(NETWORK, weights, carry[:, :1], x[:, :, :1], first, agent_axis=2)
    assert last.shape == (ENVS, 1, 8) and outputs["logits"].shape == (TIME, ENVS, 1, 3)


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
    given = Given(3, SPEC, (0, 1, 1))
    entries = {}
    for row in REGISTRY.rows():
        actor, critic = row.make(given)
        assert len(actor) == len(critic) == len(row.phases)
        entries[row.name] = (
            [{bank: (b.index, b.trained) for bank, b in phase.banks.items()} for phase in actor],
            {phase.banks["net"].index for phase in critic},
        )
    one, each, groups = (0, 0, 0), (0, 1, 2), (0, 1, 1)
    adapters = (each, True)
    assert entries["ps"] == ([{"net": (one, True)}], {one})
    assert entries["nps"] == ([{"net": (each, True)}], {each})
    assert entries["seps"] == ([{"net": (groups, True)}], {one})
    assert entries["mtl"] == ([{"trunk": (one, True), "head": (each, True)}], {one})
    lora = {"net": (one, False), "adapters": adapters}
    assert entries["ps_lora"] == ([{"net": (one, True)}, lora], {one})
    lora = {"net": (groups, False), "adapters": adapters}
    assert entries["seps_lora"] == ([{"net": (groups, True)}, lora], {one})
    shared_lora = {"net": (one, False), "adapters": (one, True)}
    assert entries["shared_lora"] == ([{"net": (one, True)}, shared_lora], {one})
    offsets = {"net": (one, False), "offsets": (each, True)}
    assert entries["bias"] == ([{"net": (one, True)}, offsets], {one})
    masks = {"shared": (one, True), "masks": (each, False)}
    assert entries["snp_ps"] == ([masks], {one})
    assert {row.name for row in REGISTRY.rows() if row.clustered} == {"seps", "seps_lora"}


@pytest.fixture(scope="module")
def schemes():
    """Every scheme of three agents with random banks of a small network."""
    network = RecurrentNetwork({"mean": (2, 0.01, 0.0)}, {"log_std": (2, 1.0)}, hidden=8)
    fresh = lambda key: parameters(network, key, 5)  # noqa: E731
    given = Given(3, SPEC, (1, 0, 1))
    found = {}
    for row in REGISTRY.rows():
        scheme = row.make(given).actor_phases[-1]
        shapes = jax.eval_shape(lambda key, s=scheme: s.init(key, fresh), jax.random.key(3))
        banks = jax.tree.map(lambda x: jnp.float32(RNG.normal(size=x.shape)), shapes)
        found[row.name] = scheme, banks
    return found


@pytest.mark.parametrize("name", REGISTRY.names())
def test_one_agents_weights_are_its_slice_of_all_weights(schemes, name):
    scheme, banks = schemes[name]
    tree, axes = scheme.weights(banks)
    for agent in range(3):
        alone, none = scheme.agent_weights(scheme.entries(banks, jnp.int32(agent)))
        assert jax.tree.leaves(none) == []
        wanted = jax.tree.map(
            lambda x, axis, a=agent: x if axis is None else x[a],
            tree, axes, is_leaf=lambda x: x is None,
        )  # fmt: skip
        # A weight may be a sum that nearly cancels: as exact as the matrix's largest.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(
                a, b, rtol=1e-6, atol=1e-6 * max(1.0, float(jnp.abs(b).max()))
            ),
            alone, wanted,
        )  # fmt: skip


def test_agents_are_independent_where_no_trained_entry_is_shared(schemes):
    independent = {name for name, (scheme, _) in schemes.items() if scheme.independent}
    assert independent == {"nps", "ps_lora", "seps_lora", "bias"}


def test_mtl_shares_everything_but_the_head(schemes):
    _, axes = schemes["mtl"][0].weights(schemes["mtl"][1])
    own = {name for name, part in axes.items() if jax.tree.leaves(part)}
    assert own == {"linear_7", "log_std"}


def test_clusters_of_one_and_of_all_are_ps_and_nps():
    assert grouped((0, 0, 0)).banks == ps(3).banks
    assert grouped((0, 1, 2)).banks == nps(3).banks
