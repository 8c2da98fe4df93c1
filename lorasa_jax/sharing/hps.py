"""Hyperspherical sharing: unit directions in common, scales per agent.

Agent i's kernel W_i [d, k] has the columns

    W_i[:, o] = g_i[o] w_o / |w_o|,

the directions w [d, k] being everybody's and the scales g_i [k] its own; biases and LayerNorms are
shared. Dividing by the norm inside the function keeps gradients of w tangential to the sphere, so
that an ordinary optimiser will do.
Source: Hyperspherical Parameter Sharing (ICML 2026, abstract; no code is public): agents' gradients
agree in direction and conflict in scale. What generates its scales is not said there; here they are
free parameters. The decomposition is weight normalisation's (Salimans and Kingma 2016, Eq. 2).
"""

import jax
import jax.numpy as jnp

from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.ways import Sharing, register

LEAST = 1e-12  # of a squared norm


def hps(num_agents: int) -> Scheme:
    """Banks `directions` [1, ...], a whole network, and `scales` {layer: [agent, k]}.

    At the start directions are the columns of one network's kernels at length one and every
    agent's scales their lengths, so that all agents begin as that network.
    """
    base = ps(num_agents)
    banks = {"directions": base.banks["net"], "scales": Bank(tuple(range(num_agents)))}

    def adopt(key, old):
        del key  # nothing is drawn
        directions, scales = dict(old["net"]), {}
        for layer, kernel in _kernels(old["net"]).items():
            directions[layer] = {**directions[layer], "kernel": unit(kernel)}
            length = jnp.linalg.norm(kernel, axis=-2)
            scales[layer] = jnp.tile(length, (num_agents, 1))
        return {"directions": directions, "scales": scales}

    def init(key, fresh):
        return adopt(key, base.init(key, fresh))

    def combine(parts):
        (net, axes), (scales, scale_axes) = parts["directions"], parts["scales"]
        net, axes = dict(net), dict(axes)
        for layer, kernel in _kernels(net).items():
            scaled = times(scales[layer][..., None, :], unit(kernel))
            net[layer] = {**net[layer], "kernel": scaled}
            axes[layer] = {**axes[layer], "kernel": scale_axes[layer]}
        return net, axes

    return Scheme(banks, init, adopt, combine)


def unit(kernel: jax.Array) -> jax.Array:
    """A kernel [..., d, k] with columns of length one; one of zeros stays as it is."""
    squares = jnp.sum(jnp.square(kernel), axis=-2, keepdims=True)
    return kernel * jax.lax.rsqrt(jnp.maximum(squares, LEAST))


def _kernels(net):
    return {
        name: value["kernel"]
        for name, value in net.items()
        if isinstance(value, dict) and "kernel" in value
    }


def _hps(given):
    return Sharing((hps(given.num_agents),), (ps(given.num_agents),))


register("hps", _hps)
