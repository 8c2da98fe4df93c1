import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.policy.distributions import SquashedGaussian
from lorasa_jax.policy.networks import (
    LAYERS,
    Linear,
    RecurrentNetwork,
    layers_of,
    parameters,
    standardise,
)
from lorasa_jax.policy.recurrence import GRU

HEADS = {"mean": (2, 0.01, 0.0), "log_std": (2, 0.01, 1.0)}


def randomise(tree, seed, scale=0.3):
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    noise = [scale * rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return structure.unflatten([leaf + n for leaf, n in zip(leaves, noise, strict=True)])


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def numpy_gru(hidden, x, w_h, b_h):
    """One step of torch.nn.GRU, given the projected input x with its bias."""
    hidden, x, w_h, b_h = map(np.asarray, (hidden, x, w_h, b_h))
    n = hidden.shape[-1]
    h = hidden @ w_h + b_h
    r = sigmoid(x[..., :n] + h[..., :n])
    z = sigmoid(x[..., n : 2 * n] + h[..., n : 2 * n])
    new = np.tanh(x[..., 2 * n :] + r * h[..., 2 * n :])
    return (1 - z) * new + z * hidden


def numpy_network(params, carry, x, first):
    """The spec's network, layer by layer in float64, with plain LayerNorms."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    carry, outputs = np.asarray(carry, np.float64), []

    def norm(x, i):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * params[f"norm_{i}"]["scale"] + params[f"norm_{i}"]["bias"]

    def linear(x, name):
        return x @ params[name]["kernel"] + params[name]["bias"]

    for now, begins in zip(np.asarray(x, np.float64), np.asarray(first), strict=True):
        for i in (1, 2, 3):
            now = np.maximum(linear(norm(now, i), f"linear_{i}"), 0)
        carry = np.where(begins[..., None], 0.0, carry)
        recurrent = params["gru_h_5"]
        gates = linear(norm(now, 4), "gru_x_4")
        carry = numpy_gru(carry, gates, recurrent["kernel"], recurrent["bias"])
        now = norm(np.maximum(linear(norm(carry, 6), "linear_6"), 0), 7)
        outputs.append((linear(now, "linear_7"), linear(now, "linear_7_log_std")))
    mean, log_std = (np.stack(out) for out in zip(*outputs, strict=True))
    return carry, {"mean": mean, "log_std": log_std}


@pytest.fixture(scope="module")
def ant():
    distribution = SquashedGaussian(2, "vector")
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, 64)
    critic = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, 64)
    return parameters(actor, jax.random.key(0), 35), parameters(critic, jax.random.key(1), 115)


@pytest.fixture(scope="module")
def small():
    network = RecurrentNetwork(HEADS, {}, 8)
    params = randomise(parameters(network, jax.random.key(2), 5), seed=0)
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.standard_normal((12, 3, 5)), jnp.float32)
    carry = jnp.asarray(rng.standard_normal((3, 8)), jnp.float32)
    apply = jax.jit(lambda carry, x, first: network.apply({"params": params}, carry, x, first))
    return params, apply, carry, x


def test_initial_norms_are_those_of_the_papers_table_10(ant):
    actor, _ = ant
    norms = {layer: float(jnp.linalg.norm(actor[layer]["kernel"])) for layer in LAYERS}
    assert norms == pytest.approx(
        {
            "linear_1": np.sqrt(2 * 35),
            "linear_2": np.sqrt(2) * 8,
            "linear_3": np.sqrt(2) * 8,
            "gru_x_4": 8.0,
            "gru_h_5": 8.0,
            "linear_6": np.sqrt(2) * 8,
            "linear_7": 0.01 * np.sqrt(2),
        },
        rel=1e-5,
    )


def test_ant_actor_and_critic_have_the_specified_number_of_parameters(ant):
    assert [count(params) for params in ant] == [40586, 45799]


def test_initial_biases_are_zero_but_that_of_the_log_std_head():
    params = parameters(RecurrentNetwork(HEADS, {}, 8), jax.random.key(0), 5)
    biases = {layer: np.unique(params[layer]["bias"]).tolist() for layer in params}
    assert biases.pop("linear_7_log_std") == [1.0]
    assert set(map(tuple, biases.values())) == {(0.0,)}


def test_a_shallow_network_without_layer_norms_has_fewer_matrices_and_no_norms():
    network = RecurrentNetwork(HEADS, {}, 8, "gru", 1, False)
    params = parameters(network, jax.random.key(0), 5)
    heads = {name for name in params if name.startswith("linear_7")}
    assert set(params) - heads == set(layers_of("gru", 1)[:-1])
    assert layers_of("gru", 1) == ("linear_1", "gru_x_4", "gru_h_5", "linear_6", "linear_7")
    params = randomise(params, seed=0)
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 3, 5)), jnp.float32)
    carry = network.initial_carry(3)
    _, outputs = network.apply({"params": params}, carry, x, jnp.ones((1, 3), bool))
    affine = lambda x, name: x @ params[name]["kernel"] + params[name]["bias"][None]  # noqa: E731
    gates = affine(np.maximum(affine(x[0], "linear_1"), 0), "gru_x_4")
    hidden = numpy_gru(carry, gates, params["gru_h_5"]["kernel"], params["gru_h_5"]["bias"])
    last = np.maximum(affine(hidden, "linear_6"), 0)
    np.testing.assert_allclose(outputs["mean"][0], affine(last, "linear_7"), rtol=1e-4, atol=1e-5)


def test_hidden_layers_are_initialised_independently(ant):
    actor, _ = ant
    assert not np.allclose(actor["linear_2"]["kernel"], actor["linear_3"]["kernel"])


def test_folded_layer_norm_equals_layer_norm_then_linear():
    rng = np.random.default_rng(0)
    x, scale, offset, kernel, bias = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in ((7, 6), (6,), (6,), (6, 4), (4,))
    )
    folded = Linear(4, 1.0).apply(
        {"params": {"kernel": kernel, "bias": bias}}, standardise(x), (scale, offset)
    )
    layer_norm = nn.LayerNorm(epsilon=1e-5)
    normed = layer_norm.apply({"params": {"scale": scale, "bias": offset}}, x)
    np.testing.assert_allclose(folded, normed @ kernel + bias[None], rtol=1e-4, atol=1e-5)


def test_gru_equals_torchs_convention():
    rng = np.random.default_rng(0)
    hidden, gates = rng.standard_normal((3, 4)), rng.standard_normal((6, 3, 12))
    kernel, bias = rng.standard_normal((4, 12)), rng.standard_normal(12)
    expected, carry = [], hidden
    for gate in gates:
        carry = numpy_gru(carry, gate, kernel, bias)
        expected.append(carry)
    last, states = GRU(4).apply(
        {"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}},
        jnp.float32(hidden), jnp.float32(gates), jnp.zeros((6, 3), bool),
    )  # fmt: skip
    np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last, states[-1])


def test_network_equals_its_specification_written_in_numpy(small):
    params, apply, carry, x = small
    first = np.zeros((12, 3), bool)
    first[4, 1] = first[7] = True
    last, outputs = apply(carry, x, first)
    expected_last, expected = numpy_network(params, carry, x, first)
    np.testing.assert_allclose(last, expected_last, rtol=1e-3, atol=1e-4)
    for name in ("mean", "log_std"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-3, atol=1e-4)


def test_first_zeroes_the_carry(small):
    _, apply, carry, x = small
    first = jnp.zeros((12, 3), bool).at[0].set(True)
    restarted = apply(carry, x, first)
    fresh = apply(jnp.zeros_like(carry), x, jnp.zeros((12, 3), bool))
    jax.tree.map(np.testing.assert_array_equal, restarted, fresh)
    kept = apply(carry, x, jnp.zeros((12, 3), bool))
    assert np.abs(kept[1]["mean"][0] - fresh[1]["mean"][0]).max() > 0.01


def test_first_concerns_only_its_own_row(small):
    _, apply, carry, x = small
    first = jnp.zeros((12, 3), bool)
    _, kept = apply(carry, x, first)
    _, restarted = apply(carry, x, first.at[5, 1].set(True))
    same = np.all(np.asarray(kept["mean"] == restarted["mean"]), axis=-1)
    expected = np.ones((12, 3), bool)
    expected[5:, 1] = False
    np.testing.assert_array_equal(same, expected)


def test_a_sequence_at_once_equals_step_by_step(small):
    _, apply, carry, x = small
    first = jnp.zeros((12, 3), bool).at[4, 1].set(True)
    last, outputs = apply(carry, x, first)
    for t in range(12):
        carry, now = apply(carry, x[t : t + 1], first[t : t + 1])
        for name in now:
            np.testing.assert_allclose(now[name][0], outputs[name][t], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(carry, last, rtol=1e-4, atol=1e-5)


def test_vector_outputs_depend_on_no_input():
    network = RecurrentNetwork({"mean": (2, 0.01, 0.0)}, {"log_std": (2, 1.0)}, 4)
    params = parameters(network, jax.random.key(0), 3)
    params = {**params, "log_std": jnp.array([0.5, -2.0])}
    x = jnp.arange(18.0).reshape(2, 3, 3)
    _, outputs = network.apply({"params": params}, jnp.zeros((3, 4)), x, jnp.zeros((2, 3), bool))
    np.testing.assert_array_equal(outputs["log_std"], np.tile([0.5, -2.0], (2, 3, 1)))


def products(jaxpr):
    """The precisions of all matrix products, those of inner programs too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation.params["precision"]
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize("length", [10, 40])
@pytest.mark.parametrize("recurrence", ["gru", "lstm", "ff"])
def test_products_are_in_full_precision_forward_and_backward(recurrence, length):
    network = RecurrentNetwork(HEADS, {}, 8, recurrence)
    inputs = network.initial_carry(3), jnp.ones((length, 3, 5)), jnp.zeros((length, 3), bool)
    params = parameters(network, jax.random.key(0), 5)

    def loss(params):
        _, outputs = network.apply({"params": params}, *inputs)
        return sum(output.sum() for output in outputs.values())

    found = list(products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))
    assert len(found) > 10
    assert set(found) == {(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)}


def test_prepared_inputs_give_the_same_outputs():
    network = RecurrentNetwork(HEADS, {}, 8)
    x = jnp.float32(np.random.default_rng(0).normal(size=(6, 3, 5)))
    variables = {"params": parameters(network, jax.random.key(0), 5)}
    rest = network.initial_carry(3), x, jnp.zeros((6, 3), bool)
    plain = network.apply(variables, *rest)
    ready = network.apply(variables, rest[0], network.prepare(x), rest[2], prepared=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, ready)
