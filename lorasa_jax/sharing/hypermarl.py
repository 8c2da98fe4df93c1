"""A hypernetwork that makes every agent's layers out of a learned embedding of the agent.

Agent i's layer, out of its embedding e_i [embedding], is

    W_i = V + sum_j h_ij U_j,    b_i = c + sum_j h'_ij u_j,    j = 1 ... H,

with U_j [d, k], V [d, k], u_j [k] and c [k] everybody's. `sharing.hypernet` says what h_i is:

    linear   h_i = h'_i = e_i,    H = embedding
    mlp      h_i = relu(e_i A + a),    h'_i = relu(e_i A' + a'),    H = sharing.hypernet_width

A [embedding, H] and A' being the layer's own. The weights of all agents are one product of
matrices, [agent, H] by [H, d k]. Layers outside `sharing.layers`, LayerNorms and a free vector of
spreads are shared.
Source: HyperMARL (Tessera et al. 2025, arXiv 2412.04233) and its authors' code, of which the
initialisation is ("reset fan in/out"): every U_j is drawn as the kernel itself would be, V and u_j
are zero, so that generated kernels have about the size of ordinary ones and differ by agent from
the start. Its linear form has one-hot ids for embeddings; embeddings begin orthogonal here, which
is the same up to a rotation where there are as many numbers as agents.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.policy.recurrence import matmul
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.layers import LayerKeys, chosen
from lorasa_jax.sharing.scheme import Bank, Scheme, plus
from lorasa_jax.sharing.ways import Sharing, register

GAIN = 2**0.5  # of embeddings and hidden layers, as in the authors' code


@dataclass(frozen=True)
class HyperKeys(LayerKeys):
    """What makes agents' layers."""

    hypernet: str = key(
        "mlp", "what lies between embedding and weights: nothing, or a hidden layer",
        choices=("linear", "mlp"),
    )  # fmt: skip
    embedding: int = key(8, "width of every agent's embedding", least=1)
    hypernet_width: int = key(64, "units of the hidden layer of hypernet=mlp", least=1)


def hypermarl(num_agents: int, keys: HyperKeys) -> Scheme:
    """Banks `shared` and `hypernet` [1, ...] and `embedding` {vector: [agent, embedding]}.

    `shared` is a network without the parts that are generated; `hypernet` {layer: {part: {out:
    [1, H, ...], base: [1, ...], and of an mlp in: [1, embedding, H], in_bias: [1, H]}}}. A network
    that is taken over becomes V and c under U and u of zero: it stays as it was.
    """
    base, mlp = ps(num_agents), keys.hypernet == "mlp"
    width = keys.hypernet_width if mlp else keys.embedding
    everyone = base.banks["net"]
    agents = Bank(tuple(range(num_agents)))
    banks = {"shared": everyone, "hypernet": everyone, "embedding": agents}

    def begin(key, net, kernels):
        """Banks of a network [1, ...]; kernels {layer: [H, d, k]}, of zeros where V is net's."""
        shared, hypernet = dict(net), {}
        embedding_key, *layer_keys = jax.random.split(key, 1 + len(kernels))
        for (layer, out), layer_key in zip(kernels.items(), layer_keys, strict=True):
            kernel, bias = net[layer]["kernel"], net[layer]["bias"]
            offsets = jnp.zeros((1, width, *bias.shape[1:]))
            parts = {
                "kernel": {"out": out[None], "base": kernel},
                "bias": {"out": offsets, "base": bias},
            }
            if mlp:
                for part, part_key in zip(parts, jax.random.split(layer_key), strict=True):
                    parts[part]["in"] = orthogonal(part_key, (keys.embedding, width), GAIN)[None]
                    parts[part]["in_bias"] = jnp.zeros((1, width))
            hypernet[layer] = parts
            del shared[layer]
        vector = orthogonal(embedding_key, (num_agents, keys.embedding), GAIN if mlp else 1.0)
        return {"shared": shared, "hypernet": hypernet, "embedding": {"vector": vector}}

    def init(key, fresh):
        net_key, hyper_key = jax.random.split(key)
        # One after the other: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
        nets = jax.lax.map(fresh, jax.random.split(net_key, width))
        net = dict(jax.tree.map(lambda x: x[:1], nets))
        kernels = {layer: nets[layer]["kernel"] for layer in chosen(nets, keys.patterns)}
        for layer in kernels:
            net[layer] = {**net[layer], "kernel": jnp.zeros_like(net[layer]["kernel"])}
        return begin(hyper_key, net, kernels)

    def adopt(key, old):
        net = old["net"]
        layers = chosen(net, keys.patterns)
        shapes = {layer: net[layer]["kernel"].shape[1:] for layer in layers}
        return begin(key, net, {layer: jnp.zeros((width, *x)) for layer, x in shapes.items()})

    def combine(parts):
        (shared, axes), (hypernet, _) = parts["shared"], parts["hypernet"]
        embedding, embedding_axes = parts["embedding"]
        tree, tree_axes = dict(shared), dict(axes)
        for layer, maps in hypernet.items():
            tree[layer] = {part: generated(x, embedding["vector"]) for part, x in maps.items()}
            tree_axes[layer] = dict.fromkeys(maps, embedding_axes["vector"])
        return tree, tree_axes

    return Scheme(banks, init, adopt, combine)


def generated(map_: dict[str, jax.Array], vector: jax.Array) -> jax.Array:
    """What a map {in, in_bias, out, base} makes of embeddings [..., embedding]: [..., *shape]."""
    hidden = vector
    if "in" in map_:
        hidden = jax.nn.relu(plus(matmul(vector, map_["in"]), map_["in_bias"]))
    out = map_["out"]
    made = matmul(hidden, out.reshape(out.shape[0], -1))
    return plus(made.reshape(*made.shape[:-1], *out.shape[1:]), map_["base"])


def orthogonal(key: jax.Array, shape: tuple[int, int], gain: float) -> jax.Array:
    """A random matrix whose rows or columns, whichever are fewer, are orthogonal of length gain."""
    left, _, right = jnp.linalg.svd(jax.random.normal(key, shape), full_matrices=False)
    return gain * matmul(left, right)


def _hypermarl(given):
    keys = convert(HyperKeys, given.options, "sharing.")
    return Sharing((hypermarl(given.num_agents, keys),), (ps(given.num_agents),))


register("hypermarl", _hypermarl, keys=HyperKeys)
