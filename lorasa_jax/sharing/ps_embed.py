"""One shared network that is told who it is by a learned embedding of the agent.

An embedding e_i concatenated to the (standardised) input x of the first layer, whose kernel then
has further rows E, is an offset of that layer's bias:

    [x, e_i] [W; E] + b = x W + (b + e_i E).

That is how it is computed: e_i [embedding] is agent i's own, E [embedding, k] is everybody's. With
e_i one-hot it is the usual agent id, so that an embedding as wide as there are agents replaces it;
give `env.agent_ids=false`, or observations say both.
Source: agent indication (Gupta et al. 2017; Terry et al. 2020) with learned instead of one-hot ids,
as the embeddings of HyperMARL (Tessera et al. 2025), which feed a hypernetwork there.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.policy.networks import LAYERS
from lorasa_jax.policy.recurrence import matmul
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.scheme import Bank, Scheme, plus
from lorasa_jax.sharing.ways import Sharing, register

FIRST = LAYERS[0]


@dataclass(frozen=True)
class EmbeddingKeys:
    """How agents are told apart."""

    embedding: int = key(8, "width of every agent's embedding", least=1)


def ps_embed(num_agents: int, width: int) -> Scheme:
    """Banks `net` [1, ...], `embedding` {vector: [agent, width]} and `map` {kernel: [1, width, k]}.

    Vectors begin standard normal. E begins orthogonal with gain sqrt(2), as the kernel whose rows
    it continues; where a trained network is taken over E is zero, which leaves it as it was.
    """
    base, everyone = ps(num_agents), Bank((0,) * num_agents)
    banks = {"net": everyone, "map": everyone, "embedding": Bank(tuple(range(num_agents)))}

    def begin(key, net, kernel):
        vector = jax.random.normal(key, (num_agents, width))
        return {"net": net, "map": {"kernel": kernel[None]}, "embedding": {"vector": vector}}

    def shape(net):
        return width, net[FIRST]["bias"].shape[-1]

    def init(key, fresh):
        net_key, kernel_key, vector_key = jax.random.split(key, 3)
        net = base.init(net_key, fresh)["net"]
        return begin(vector_key, net, nn.initializers.orthogonal(2**0.5)(kernel_key, shape(net)))

    def adopt(key, old):
        return begin(key, old["net"], jnp.zeros(shape(old["net"])))

    def combine(parts):
        (net, axes), (own, own_axes) = parts["net"], parts["embedding"]
        offset = matmul(own["vector"], parts["map"][0]["kernel"])
        first = {**net[FIRST], "bias": plus(net[FIRST]["bias"], offset)}
        first_axes = {**axes[FIRST], "bias": own_axes["vector"]}
        return {**net, FIRST: first}, {**axes, FIRST: first_axes}

    return Scheme(banks, init, adopt, combine)


def _ps_embed(given):
    width = convert(EmbeddingKeys, given.options, "sharing.").embedding
    return Sharing((ps_embed(given.num_agents, width),), (ps(given.num_agents),))


register("ps_embed", _ps_embed, keys=EmbeddingKeys)
