"""Structured pruning: every agent uses a fixed random part of one network's hidden units.

Agent i's layer is

    W_i = diag(m_in) W diag(m_out),    b_i = m_out b,

with m_in and m_out the 0/1 masks of agent i over the units that the layer reads and writes. Masks
are drawn once, from `sharing.mask_seed` and not from the run's seed, and never trained. Inputs of
the network and outputs of its heads are whole. One mask is for a recurrent layer's state; its gates
take it each, and a pruned unit of the state stays at zero. The moments of a LayerNorm are over all
units, pruned ones being zero.
Source: SNP-PS (Kim and Sung 2023): f_i(x) = f(x; theta * M_i), masks per neuron, one pruning ratio
for every layer.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.policy.networks import HEAD, layer_of
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.ways import Sharing, register


@dataclass(frozen=True)
class MaskKeys:
    """Which hidden units every agent uses."""

    pruned: float = key(
        0.5, "share of every hidden layer's units that an agent does without", least=0, below=1
    )
    mask_seed: int = key(0, "seed of the agents' masks, for all seeds of a run", least=0)


def snp_ps(num_agents: int, keys: MaskKeys) -> Scheme:
    """Banks `shared` [1, ...], a whole network, and `masks` {layer: [agent, width]}, frozen."""
    base = ps(num_agents)
    banks = {
        "shared": base.banks["net"],
        "masks": Bank(tuple(range(num_agents)), trained=False),
    }

    def adopt(key, old):
        del key  # masks have a seed of their own
        return {"shared": old["net"], "masks": draw(old["net"], num_agents, keys)}

    def init(key, fresh):
        return adopt(key, base.init(key, fresh))

    def combine(parts):
        (net, axes), (masks, mask_axes) = parts["shared"], parts["masks"]
        net, axes = dict(net), dict(axes)
        for layer, (reads, writes) in sides(net).items():
            kernel, bias = net[layer]["kernel"], net[layer]["bias"]
            changed = {}
            if reads is not None:
                kernel = times(masks[reads][..., :, None], kernel)
                changed["kernel"] = mask_axes[reads]
            if writes is not None:
                out = tiled(masks[writes], kernel.shape[-1])
                kernel = times(out[..., None, :], kernel)
                bias = times(out, bias)
                changed["kernel"] = changed["bias"] = mask_axes[writes]
            net[layer] = {**net[layer], "kernel": kernel, "bias": bias}
            axes[layer] = {**axes[layer], **changed}
        return net, axes

    return Scheme(banks, init, adopt, combine)


def sides(net: dict) -> dict[str, tuple[str | None, str | None]]:
    """{layer: (whose mask its inputs take, whose its outputs)}; None where nothing is pruned."""
    kernels = [name for name, x in net.items() if isinstance(x, dict) and "kernel" in x]
    kernels.sort(key=lambda name: int(layer_of(name).rpartition("_")[2]))
    state = next((name for name in kernels if name.endswith("_h_5")), None)
    found, before = {}, None
    for name in kernels:
        after = None if layer_of(name) == HEAD else state if name.endswith("_x_4") else name
        found[name] = (state if name == state else before, after)
        before = before if after is None else after
    return found


def draw(net: dict, num_agents: int, keys: MaskKeys) -> dict[str, jax.Array]:
    """Masks {layer: [agent, width]}, 1 where a unit is kept.

    round(pruned * width) units of every layer are 0, and one at least is 1. net [1, ...].
    """
    seed = jax.random.key(keys.mask_seed)
    layers = dict.fromkeys(writes for _, writes in sides(net).values() if writes is not None)
    masks = {}
    for number, layer in enumerate(layers):
        side = -2 if layer.endswith("_h_5") else -1  # a recurrent kernel has a column per gate
        width = net[layer]["kernel"].shape[side]
        noise = jax.random.uniform(jax.random.fold_in(seed, number), (num_agents, width))
        ranks = jnp.argsort(jnp.argsort(noise, axis=-1), axis=-1)
        count = min(round(keys.pruned * width), width - 1)
        masks[layer] = (ranks >= count).astype(jnp.float32)
    return masks


def tiled(mask: jax.Array, columns: int) -> jax.Array:
    """A mask [..., width] for `columns`, which are as many for every gate."""
    repeats = columns // mask.shape[-1]
    return jnp.tile(mask, (*(1,) * (mask.ndim - 1), repeats))


def _snp_ps(given):
    keys = convert(MaskKeys, given.options, "sharing.")
    return Sharing((snp_ps(given.num_agents, keys),), (ps(given.num_agents),))


register("snp_ps", _snp_ps, keys=MaskKeys)
