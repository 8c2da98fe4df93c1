"""How active every unit of every layer is: the maps of the paper's Figures 9-20."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lorasa_jax.analysis import policies
from lorasa_jax.analysis.observations import Observations
from lorasa_jax.analysis.weights import ordered
from lorasa_jax.learn.team import Team
from lorasa_jax.policy.networks import HEAD, LAYERS_OF, RecurrentNetwork, layer_of


def activation_maps(
    team: Team, actor_weights, observations: Observations, *, own_ids: bool = False
) -> dict[str, jax.Array]:
    """{layer: [agent, unit]}: mean absolute activation over everything that anyone observed.

    Every agent's network sees the same sequences, see `policies`; observations of inactive agents
    are left out. For the shared policy's own row give the backbone's weights.

    Raises:
      ValueError: own_ids where the environment's observations carry no ids.
    """
    counted = observations.active.astype(float)[..., None]

    def means(parameters, carry, obs, first):
        layers = activations(team.actor.network, parameters, carry, obs, first)
        return {
            layer: jnp.sum(jnp.abs(x) * counted, (0, 1, 2)) / counted.sum()
            for layer, x in layers.items()
        }

    maps = policies.over_agents(means, team, actor_weights, observations, own_ids)
    return ordered(maps)


def activations(
    network: RecurrentNetwork, parameters, carry: jax.Array, x: jax.Array, first: jax.Array
) -> dict[str, jax.Array]:
    """{layer: [time, ..., unit]}: what every layer of one network passes on.

    Linear layers after their ReLU; the recurrent layer's hidden states under gru_h_5, its input
    projection (all gates) under gru_x_4; the head's outputs as they are, each by itself.
    """
    _, captured = network.apply(
        {"params": parameters},
        carry,
        x,
        first,
        capture_intermediates=_is_layer,
        mutable=["intermediates"],
    )
    layer_outputs = {}
    for name, calls in captured["intermediates"].items():
        out = calls["__call__"][0]
        layer_outputs[name] = _passed_on(name, out[1] if isinstance(out, tuple) else out)
    return layer_outputs


def _is_layer(module, method):
    del method
    layers = {layer for kind in LAYERS_OF.values() for layer in kind}
    return module.name is not None and layer_of(module.name) in layers


def _passed_on(name, out):
    hidden = name.startswith("linear_") and layer_of(name) != HEAD
    return nn.relu(out) if hidden else out
