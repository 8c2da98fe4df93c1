"""Every agent's kernels are mixtures of a few shared ones.

Agent i's kernel of every layer is

    W_i = sum_k softmax(a_i)_k W^(k),    k = 1 ... K,

the kernels W^(k) [d, k] being everybody's and the logits a_i [K] of the layer its own. Biases,
LayerNorms and a free log-std vector are shared. With K = 1 it is full sharing.
Source: the static form of ADMN (Yu et al. 2024), whose layers are K shared modules that an agent's
router mixes at every step; as a function of parameters the mixture is fixed within an episode, and
the router's auxiliary loss is left out.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.scheme import Bank, Scheme
from lorasa_jax.sharing.ways import Sharing, register


@dataclass(frozen=True)
class MixtureKeys:
    """What is mixed."""

    kernels: int = key(4, "shared kernels of every layer, of which agents have mixtures", least=1)


def mixture(num_agents: int, count: int) -> Scheme:
    """Banks `shared` [1, ...], whose kernels are [1, K, d, k], and `logits` {layer: [agent, K]}.

    A fresh scheme has K independent kernels, sqrt(K) times the usual ones, and logits of zero: all
    agents begin alike, with weights as large as a fresh network's. A network that is taken over is
    repeated K times under standard normal logits: it stays as it was, and its copies differ in who
    trains them.
    """
    base = ps(num_agents)
    banks = {"shared": base.banks["net"], "logits": Bank(tuple(range(num_agents)))}

    def init(key, fresh):
        # One after the other: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
        nets = jax.lax.map(fresh, jax.random.split(key, count))
        one = jax.tree.map(lambda x: x[:1], nets)
        kernels = {layer: count**0.5 * nets[layer]["kernel"][None] for layer in _layers(nets)}
        logits = {layer: jnp.zeros((num_agents, count)) for layer in kernels}
        return {"shared": _with(one, kernels), "logits": logits}

    def adopt(key, old):
        net = old["net"]
        layers = _layers(net)
        kernels = {layer: jnp.stack([net[layer]["kernel"]] * count, axis=1) for layer in layers}
        logits = {
            layer: jax.random.normal(layer_key, (num_agents, count))
            for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True)
        }
        return {"shared": _with(net, kernels), "logits": logits}

    def combine(parts):
        (net, axes), (logits, logit_axes) = parts["shared"], parts["logits"]
        kernels = {layer: mixed(logits[layer], net[layer]["kernel"]) for layer in logits}
        return _with(net, kernels), _with(axes, logit_axes)

    return Scheme(banks, init, adopt, combine)


def mixed(logits: jax.Array, kernels: jax.Array) -> jax.Array:
    """The mixtures [..., d, k] of kernels [K, d, k] by logits [..., K]."""
    shares = jax.nn.softmax(logits, axis=-1)
    return jnp.einsum("...n,ndk->...dk", shares, kernels, precision=jax.lax.Precision.HIGHEST)


def _layers(net):
    return sorted(name for name, x in net.items() if isinstance(x, dict) and "kernel" in x)


def _with(net, kernels):
    """A network whose kernels (or their axes) are replaced."""
    return {**net, **{layer: {**net[layer], "kernel": x} for layer, x in kernels.items()}}


def _mixture(given):
    count = convert(MixtureKeys, given.options, "sharing.").kernels
    return Sharing((mixture(given.num_agents, count),), (ps(given.num_agents),))


register("mixture", _mixture, keys=MixtureKeys)
