"""Offsets per agent on biases and LayerNorms alone, on a frozen shared network.

Agent i's layer is x W + (b + d_i), and its LayerNorm (s + u_i) x + (c + v_i), with d_i, u_i and v_i
zero at the start. A free log-std vector, which is a bias without a layer, gets an offset too.
Source: BitFit (Ben Zaken et al. 2022, Sec. 3), which trains all biases of a frozen network; scales
of LayerNorms are trained here as well. With one-hot ids a shared network has offsets of its first
layer already; these are of every layer.
"""

from lorasa_jax.registry import Phase
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.lora import init_adapters, merge
from lorasa_jax.sharing.scheme import Bank, Scheme, entry_of
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.sharing.ways import Sharing, register

OFFSETS = LoraSpec(rank=0, targets=(), bias="all", norms=True)


def bias(num_agents: int) -> Scheme:
    """Banks `net` [1, ...], frozen, and `offsets` {layer: {part: [agent, k]}}, zero at first."""
    base = ps(num_agents)
    banks = {
        "net": base.banks["net"]._replace(trained=False),
        "offsets": Bank(tuple(range(num_agents))),
    }

    def adopt(key, old):
        offsets = init_adapters(key, entry_of(old["net"], 0), OFFSETS, num_agents)
        return {"net": old["net"], "offsets": offsets}

    def init(key, fresh):
        return adopt(key, base.init(key, fresh))

    def combine(parts):
        (net, axes), (offsets, offset_axes) = parts["net"], parts["offsets"]
        return merge(net, axes, offsets, offset_axes, OFFSETS)

    return Scheme(banks, init, adopt, combine)


def _bias(given):
    shared = ps(given.num_agents)
    return Sharing((shared, bias(given.num_agents)), (shared, shared))


register(
    "bias", _bias, cell="ps_lora",
    phases=(Phase("pretrain", "ps", until=1 / 3), Phase("finetune")),
)  # fmt: skip
