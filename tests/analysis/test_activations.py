import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.analysis.activations import activation_maps, activations
from lorasa_jax.policy.networks import LAYERS, LAYERS_OF, standardise
from lorasa_jax.policy.recurrence import GRU


def layers_of_a_forward_pass(params, carry, x, first):
    """What every layer passes on, written out with plain LayerNorms."""

    def linear(x, layer, norm):
        norm, layer = (
            {name: jnp.atleast_2d(value) for name, value in params[module].items()}
            for module in (f"norm_{norm}", layer)
        )
        rows = standardise(x).reshape(-1, x.shape[-1]) * norm["scale"] + norm["bias"]
        return (rows @ layer["kernel"] + layer["bias"]).reshape(*x.shape[:-1], -1)

    found = {}
    for i in (1, 2, 3):
        x = found[f"linear_{i}"] = nn.relu(linear(x, f"linear_{i}", i))
    found["gru_x_4"] = linear(x, "gru_x_4", 4)
    cell = GRU(carry.shape[-1])
    _, x = cell.apply({"params": params["gru_h_5"]}, carry, found["gru_x_4"], first)
    found["gru_h_5"] = x
    x = found["linear_6"] = nn.relu(linear(x, "linear_6", 6))
    found["linear_7"] = linear(x, "linear_7", 7)
    return found


@pytest.fixture(scope="module")
def apart(build, random_banks, observed):
    team = build(sharing="nps")
    banks, seen = random_banks(team.actor), observed(team)
    return banks["net"], seen, activation_maps(team, team.actor.scheme.weights(banks), seen)


def test_maps_are_means_over_a_direct_forward_pass(apart):
    net, seen, maps = apart
    assert list(maps) == list(LAYERS)
    first = jnp.broadcast_to(seen.first[..., None], seen.obs.shape[:3])
    for agent in range(2):
        params = jax.tree.map(lambda x, agent=agent: x[agent], net)
        expected = layers_of_a_forward_pass(params, jnp.zeros((3, 2, 8)), seen.obs, first)
        for layer, x in expected.items():
            np.testing.assert_allclose(
                maps[layer][agent], np.abs(x).mean((0, 1, 2)), rtol=1e-4, atol=1e-5
            )


def test_inactive_agents_observations_do_not_count(apart, build):
    net, seen, _ = apart
    team = build(sharing="nps")
    weights = team.actor.scheme.weights({"net": net})
    masked = seen._replace(active=seen.active.at[:, :, 1].set(False))
    alone = type(seen)(seen.obs[:, :, :1], seen.first, seen.legal[:, :, :1], seen.active[:, :, :1])
    found, expected = (activation_maps(team, weights, x) for x in (masked, alone))
    for layer in LAYERS:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "ff"])
def test_other_kinds_of_networks_have_maps_of_their_layers(kind, build, random_banks, observed):
    team = build(f"network.kind={kind}")
    weights = team.actor.scheme.weights(random_banks(team.actor))
    maps = activation_maps(team, weights, observed(team))
    assert list(maps) == list(LAYERS_OF[kind])
    widths = {layer: x.shape[-1] for layer, x in maps.items()}
    expected = {"linear_1": 8, "linear_7": 2, "lstm_x_4": 32, "lstm_h_5": 8}
    assert all(widths[layer] == expected.get(layer, 8) for layer in widths)


def test_outputs_are_apart(build, random_banks):
    role = build("env=probe_action_continuous", "network.log_std=linear").actor
    params = jax.tree.map(lambda x: x[0], random_banks(role)["net"])
    inputs = jnp.zeros((1, 8)), jnp.ones((1, 1, role.features)), jnp.ones((1, 1), bool)
    _, outputs = role.network.apply({"params": params}, *inputs)
    found = activations(role.network, params, *inputs)
    np.testing.assert_array_equal(found["linear_7"], outputs["mean"])
    np.testing.assert_array_equal(found["linear_7_log_std"], outputs["log_std"])
