import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn.team import forward
from lorasa_jax.policy.distributions import SquashedGaussian
from lorasa_jax.policy.networks import LAYERS, RecurrentNetwork, parameters
from lorasa_jax.sharing import adapted, ps
from lorasa_jax.sharing.lora import delta, init_adapters, merge
from lorasa_jax.sharing.spec import LoraSpec

AGENTS = 3
SPEC = LoraSpec(rank=2, alpha=6.0)
NETWORK = RecurrentNetwork({"mean": (3, 0.01, 0.0)}, {"log_std": (3, 1.0)}, 8)


def shapes(network, features):
    return jax.eval_shape(lambda key: parameters(network, key, features), jax.random.key(0))


def randomise(tree, seed=0):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return structure.unflatten([jnp.float32(rng.standard_normal(leaf.shape)) for leaf in leaves])


def by_agent(adapters):
    return jax.tree.map(lambda leaf: 0, adapters)


def without_agents(tree):
    return jax.tree.map(lambda leaf: None, tree)


@pytest.fixture(scope="module")
def net():
    return randomise(shapes(NETWORK, 5))


@pytest.fixture(scope="module")
def adapters(net):
    return init_adapters(jax.random.key(1), net, SPEC, AGENTS)


@pytest.fixture(scope="module")
def trained(adapters):
    return randomise(adapters, seed=1)


@pytest.fixture(scope="module")
def ant():
    distribution = SquashedGaussian(2, "vector")
    return shapes(RecurrentNetwork(distribution.heads, distribution.vectors, 64), 35)


def test_deltas_are_zero_at_the_switch(adapters):
    for layer in LAYERS:
        np.testing.assert_array_equal(delta(adapters[layer], SPEC, layer), 0.0)
    np.testing.assert_array_equal(adapters["log_std"]["offset"], 0.0)


def test_policy_is_bit_identical_right_after_the_switch(net):
    before, after = ps(AGENTS), adapted(ps(AGENTS), SPEC)
    banks = {"net": jax.tree.map(lambda leaf: leaf[None], net)}
    old, new = before.weights(banks), after.weights(after.adopt(jax.random.key(2), banks))
    x = jax.random.normal(jax.random.key(3), (4, 2, 5))
    first = jnp.zeros((4, 2), bool)
    apply = jax.jit(lambda params: NETWORK.apply({"params": params}, jnp.ones((2, 8)), x, first))
    expected = apply(old[0])
    for i in range(AGENTS):
        own = jax.tree.map(
            lambda axis, leaf, i=i: leaf if axis is None else leaf[i],
            new[1], new[0], is_leaf=lambda axis: axis is None,
        )  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, own, old[0])
        jax.tree.map(np.testing.assert_array_equal, apply(own), expected)
    x = jnp.repeat(x[:, :, None], AGENTS, axis=2)
    carry = jnp.ones((2, AGENTS, 8))
    outputs = [forward(NETWORK, weights, carry, x, first, agent_axis=2) for weights in (old, new)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *outputs)


def test_merged_weights_equal_the_factored_computation(net, trained):
    merged, _ = merge(net, without_agents(net), trained, by_agent(trained), SPEC)
    rng = np.random.default_rng(0)
    for layer in LAYERS:
        kernel = np.asarray(net[layer]["kernel"], np.float64)
        a, b = (np.asarray(trained[layer][name], np.float64) for name in ("a", "b"))
        x = rng.standard_normal((4, kernel.shape[0]))
        for i in range(AGENTS):
            factored = x @ kernel + SPEC.alpha / SPEC.rank * (x @ a[i]) @ b[i]
            np.testing.assert_allclose(
                x @ merged[layer]["kernel"][i], factored, rtol=1e-4, atol=1e-4
            )


def test_a_begins_at_zero_and_b_uniform_within_its_bound(ant):
    rank = 16
    adapters = init_adapters(jax.random.key(0), ant, LoraSpec(rank, 16.0), 4)
    for layer in LAYERS[:-1]:
        b = np.asarray(adapters[layer]["b"])
        np.testing.assert_array_equal(adapters[layer]["a"], 0.0)
        assert np.abs(b).max() <= rank**-0.5
        assert b.std() == pytest.approx(rank**-0.5 / np.sqrt(3), rel=0.05)
        assert len({entry.tobytes() for entry in b}) == 4


def test_delta_is_scaled_by_alpha_over_rank(trained):
    adapter = trained["linear_2"]
    product = np.asarray(adapter["a"], np.float64) @ np.asarray(adapter["b"], np.float64)
    for rank, alpha in ((2, 2.0), (2, 6.0), (4, 1.0)):
        got = delta(adapter, LoraSpec(rank, alpha), "linear_2")
        np.testing.assert_allclose(got, alpha / rank * product, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rank", "full"), [(2, set()), (3, {"linear_7"}), (8, set(LAYERS))])
def test_rank_at_least_the_smaller_side_gives_an_unscaled_full_matrix(net, rank, full):
    spec = LoraSpec(rank, alpha=7.0 * rank, targets=("linear_2", "gru_x_4", "linear_7"))
    adapters = randomise(init_adapters(jax.random.key(0), net, spec, AGENTS))
    del adapters["log_std"]
    assert {layer for layer in adapters if "full" in adapters[layer]} == full & set(adapters)
    for layer in full & set(adapters):
        assert adapters[layer]["full"].shape == (AGENTS, *net[layer]["kernel"].shape)
        np.testing.assert_array_equal(delta(adapters[layer], spec, layer), adapters[layer]["full"])


def test_trained_delta_has_rank_r(trained):
    for layer in LAYERS:
        ranks = np.linalg.matrix_rank(np.asarray(delta(trained[layer], SPEC, layer)), rtol=1e-5)
        np.testing.assert_array_equal(ranks, SPEC.rank)


def test_only_targeted_layers_are_adapted(net):
    spec = SPEC._replace(targets=("linear_1", "gru_h_5"))
    adapters = randomise(init_adapters(jax.random.key(0), net, spec, AGENTS))
    assert set(adapters) == {"linear_1", "gru_h_5", "log_std"}
    merged, axes = merge(net, without_agents(net), adapters, by_agent(adapters), spec)
    for layer in set(net) - set(adapters):
        jax.tree.map(np.testing.assert_array_equal, merged[layer], net[layer])
        assert not jax.tree.leaves(axes[layer])
    for layer in ("linear_1", "gru_h_5"):
        assert merged[layer]["kernel"].shape[0] == AGENTS
        assert axes[layer]["kernel"] == 0


def test_a_log_std_head_is_adapted_with_the_head():
    network = RecurrentNetwork({"mean": (3, 0.01, 0.0), "log_std": (3, 0.01, 1.0)}, {}, 8)
    spec = SPEC._replace(targets=("linear_7",))
    adapters = init_adapters(jax.random.key(0), shapes(network, 5), spec, AGENTS)
    assert set(adapters) == {"linear_7", "linear_7_log_std"}


def test_biases_and_norms_are_the_backbones_own(net, trained):
    merged, axes = merge(net, without_agents(net), trained, by_agent(trained), SPEC)
    for layer in LAYERS:
        assert merged[layer]["bias"] is net[layer]["bias"]
        assert axes[layer]["bias"] is None
    for norm in (name for name in net if name.startswith("norm")):
        assert merged[norm] is net[norm]
        assert not jax.tree.leaves(axes[norm])


def test_each_agent_offsets_the_free_log_std(net, trained):
    merged, axes = merge(net, without_agents(net), trained, by_agent(trained), SPEC)
    offset = trained["log_std"]["offset"]
    np.testing.assert_array_equal(merged["log_std"], net["log_std"][None] + offset)
    assert axes["log_std"] == 0


@pytest.mark.parametrize(("rank", "expected"), [(4, 4110), (8, 8090), (16, 16050), (64, 39234)])
def test_ant_adapters_have_the_specified_number_of_parameters(ant, rank, expected):
    spec = LoraSpec(rank, float(rank))
    adapters = jax.eval_shape(lambda key: init_adapters(key, ant, spec, 4), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == 4 * expected
