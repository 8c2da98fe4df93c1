"""Adapters beyond the paper's default, other cells, and parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.networks import LAYERS_OF, RecurrentNetwork, parameters
from lorasa_jax.sharing import adapted, mtl, nps, ps
from lorasa_jax.sharing.lora import init_adapters, merge
from lorasa_jax.sharing.spec import LoraSpec

AGENTS = 3


def network(kind="gru"):
    return RecurrentNetwork({"mean": (2, 0.01, 0.0)}, {"log_std": (2, 1.0)}, 8, kind)


def by_agent(adapters):
    return jax.tree.map(lambda leaf: 0, adapters)


@pytest.fixture(scope="module")
def net():
    return jax.jit(lambda key: parameters(network(), key, 5))(jax.random.key(0))


def adapters(net, **words):
    return init_adapters(jax.random.key(1), net, LoraSpec(2, **words), AGENTS)


def test_rank_pattern_gives_single_layers_another_rank(net):
    found = adapters(net, rank_pattern=(("gru_*", 4), ("linear_1", 0)))
    assert found["gru_x_4"]["a"].shape == (AGENTS, 8, 4)
    assert found["linear_2"]["a"].shape == (AGENTS, 8, 2)
    assert "linear_1" not in found


def test_alpha_pattern_scales_single_layers():
    spec = LoraSpec(2, 6.0, alpha_pattern=(("linear_1", 1.0),), rank_pattern=(("gru_*", 4),))
    assert [spec.scaling(layer) for layer in ("linear_1", "linear_2", "gru_x_4")] == [0.5, 3.0, 1.5]
    assert LoraSpec(2, rank_pattern=(("gru_*", 4),)).scaling("gru_x_4") == 1.0


def test_targets_by_pattern(net):
    assert set(adapters(net, targets=("gru_*", "linear_7"))) == {
        "gru_x_4", "gru_h_5", "linear_7", "log_std",
    }  # fmt: skip


@pytest.mark.parametrize(
    "bias, with_bias", [("none", set()), ("lora", {"linear_1"}), ("all", set(LAYERS_OF["gru"]))]
)
def test_biases_get_offsets(net, bias, with_bias):
    found = adapters(net, targets=("linear_1",), bias=bias)
    assert {layer for layer, part in found.items() if "bias" in part} == with_bias
    for layer in with_bias:
        np.testing.assert_array_equal(
            found[layer]["bias"], np.zeros((AGENTS, len(net[layer]["bias"])))
        )


def test_norms_get_offsets(net):
    found = adapters(net, norms=True)
    assert {layer for layer in found if layer.startswith("norm_")} == {
        f"norm_{i}" for i in (1, 2, 3, 4, 6, 7)
    }
    tree, axes = merge(
        net, jax.tree.map(lambda x: None, net), found, by_agent(found), LoraSpec(2, norms=True)
    )
    assert axes["norm_1"] == {"scale": 0, "bias": 0}
    np.testing.assert_array_equal(tree["norm_1"]["scale"], np.ones((AGENTS, 5)))


def test_rank_zero_everywhere_is_full_sharing(net):
    scheme = adapted(ps(AGENTS), LoraSpec(2, rank_pattern=(("*", 0),)))
    banks = scheme.adopt(jax.random.key(0), {"net": jax.tree.map(lambda x: x[None], net)})
    assert set(banks["adapters"]) == {"log_std"}
    tree, axes = scheme.weights(banks)
    jax.tree.map(np.testing.assert_array_equal, {**tree, "log_std": 0}, {**net, "log_std": 0})
    assert jax.tree.leaves({**axes, "log_std": None}) == []


def test_full_rank_adapters_can_be_any_agents_network(net):
    """Deltas W_i - W give agent i the kernels of a network of its own."""
    keys = jax.random.split(jax.random.key(7), AGENTS)
    apart = [parameters(network(), key, 5) for key in keys]
    spec = LoraSpec(64)
    full = init_adapters(jax.random.key(1), net, spec, AGENTS)
    for layer in LAYERS_OF["gru"]:
        own = jnp.stack([one[layer]["kernel"] for one in apart])
        full[layer] = {"full": own - net[layer]["kernel"][None]}
    tree, _ = merge(net, jax.tree.map(lambda x: None, net), full, by_agent(full), spec)
    for layer in LAYERS_OF["gru"]:
        for i, one in enumerate(apart):
            np.testing.assert_allclose(tree[layer]["kernel"][i], one[layer]["kernel"], atol=1e-6)


def test_an_lstm_step_by_hand():
    net = network("lstm")
    params = parameters(net, jax.random.key(0), 5)
    assert set(LAYERS_OF["lstm"]) <= set(params)
    cell = {"params": {"kernel": params["lstm_h_5"]["kernel"], "bias": params["lstm_h_5"]["bias"]}}
    from lorasa_jax.policy.recurrence import LSTM

    rng = np.random.default_rng(0)
    gates, carry = rng.normal(size=(4, 2, 32)), rng.normal(size=(2, 16))
    first = np.array([[False, True], [False, False], [True, False], [False, False]])
    last, outputs = LSTM(8).apply(cell, *map(jnp.float32, (carry, gates)), jnp.asarray(first))
    hidden, memory = np.split(carry, 2, axis=-1)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for t in range(4):
        hidden, memory = (np.where(first[t][:, None], 0, x) for x in (hidden, memory))
        total = gates[t] + hidden @ np.asarray(cell["params"]["kernel"])
        enter, forget, new, leave = np.split(total, 4, axis=-1)
        memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(memory)
        np.testing.assert_allclose(outputs[t], hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, np.concatenate([hidden, memory], -1), rtol=1e-4, atol=1e-5)


def test_a_feed_forward_network_ignores_its_carry():
    net = network("ff")
    params = parameters(net, jax.random.key(0), 5)
    assert {name for name in params if not name.startswith("norm")} == {*LAYERS_OF["ff"], "log_std"}
    x = jax.random.normal(jax.random.key(1), (3, 2, 5))
    first = jnp.zeros((3, 2), bool)
    outs = [
        net.apply({"params": params}, net.initial_carry(2) + shift, x, first)[1]["mean"]
        for shift in (0.0, 9.0)
    ]
    np.testing.assert_array_equal(*outs)


# Observation, state and action sizes (ids included), then the paper's architecture in numbers:
# PS actor, PS critic, NPS actors, MTL actor, adapters an agent at rank 4, 8, 16, 64.
COUNTS = {
    "halfcheetah_2x3": (2, 9, 19, 3, 38936, 39463, 77872, 39134, (4071, 7947, 15107, 37635)),
    "walker2d_3x2": (3, 10, 20, 2, 38936, 39529, 116808, 39200, (4010, 7890, 15106, 37634)),
    "ant_4x2": (4, 35, 115, 2, 40586, 45799, 162344, 40982, (4110, 8090, 16050, 39234)),
    "humanoid_9_8": (2, 378, 378, 9, 63686, 63157, 127372, 64280, (5653, 11297, 21993, 61641)),
    "smac 3s5z": (8, 252, 299, 14, 55686, 57943, 445488, 62056, (5160, 10320, 20288, 53888)),
    "smac 1c3s5z": (9, 310, 363, 15, 59579, 62167, 536211, 67379, (5396, 10792, 21280, 57664)),
    "smac 3s5z_vs_3s6z": (
        8, 268, 318, 15, 56807, 59197, 454456, 63632, (5228, 10456, 20608, 54976)),
    "smac MMM2": (10, 370, 435, 18, 63734, 66919, 637340, 74264, (5648, 11296, 22592, 61696)),
    "ant_2x4": (2, 54, 113, 4, 41972, 45667, 83944, 42236, (None, 8372, None, None)),
    "ant_8x1": (8, 29, 119, 1, 40124, 46063, 320992, 40586, (None, 7977, None, None)),
    "smac 2s3z": (5, 144, 173, 11, 48363, 49627, 241815, 51223, (None, 9432, None, None)),
}  # fmt: skip


def size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("task", COUNTS)
def test_parameter_counts_of_every_scheme(task):
    """The authors' networks (free log-std); see the paper's Figure 3."""
    n, obs, state, actions, actor, critic, separate, heads, ranks = COUNTS[task]
    discrete = task.startswith("smac")
    distribution = Categorical(actions) if discrete else SquashedGaussian(actions, "vector")
    net = RecurrentNetwork(distribution.heads, distribution.vectors, 64)
    value = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, 64)

    def count(scheme, network=net, width=obs):
        fresh = lambda key: parameters(network, key, width)  # noqa: E731
        return jax.eval_shape(lambda key: scheme.init(key, fresh), jax.random.key(0))

    assert size(count(ps(n))) == actor
    assert size(count(ps(n), value, state)) == critic
    assert size(count(nps(n))) == separate
    assert size(count(mtl(n))) == heads
    for rank, expected in zip((4, 8, 16, 64), ranks, strict=True):
        if expected is not None:
            assert size(count(adapted(ps(n), LoraSpec(rank)))["adapters"]) == n * expected
