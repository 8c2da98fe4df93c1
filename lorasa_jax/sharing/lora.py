"""Low-rank adapters: one small trained delta per agent and weight matrix (paper, Sec. 2.2).

For a kernel W [d, k], agent i's weight is W + (alpha / r) A_i B_i with A_i [d, r] zero and
B_i [r, k] uniform on +-1/sqrt(r) at the start, as in the paper's Algorithm 2 and its authors' code.
Where r >= min(d, k) a factorisation would only cost: the delta is then a full zero matrix of
scaling 1. The names are PEFT's (rank, alpha, targets, rank_pattern, bias), but PEFT starts with A
random and B zero.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from lorasa_jax.policy.networks import layer_of
from lorasa_jax.registry import Phase
from lorasa_jax.sharing.full import grouped, ps
from lorasa_jax.sharing.lora_keys import ClusteredLoraKeys, KeyedLoraKeys
from lorasa_jax.sharing.ranks import scheduled
from lorasa_jax.sharing.scheme import Bank, Scheme, plus
from lorasa_jax.sharing.spec import LoraSpec, has
from lorasa_jax.sharing.variants import FORMS, low_rank
from lorasa_jax.sharing.ways import Sharing, register

NOTHING: Mapping[str, dict] = MappingProxyType({})
OFFSETS = ("bias", "scale")  # parts of an adapter that are added to those of this name


def init_adapters(key: jax.Array, net: dict, spec: LoraSpec, num_agents: int) -> dict:
    """Adapters {layer: the kind's parts, and offsets}, every leaf with a leading agent axis.

    Parts of kind `lora` are "a", zero, and "b", or "full", zero; variants makes them and those of
    other kinds. net is the backbone's parameters without leading axis. A head's extra outputs
    (linear_7_*) are adapted with the head. A free log_std vector gets a zero offset per agent
    (authors' code).
    """
    adapters = {}
    kernels = sorted(name for name, value in net.items() if has(value, "kernel"))
    layers, own = spec.layers(net), FORMS[spec.kind].own
    for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
        shape, rank = net[layer]["kernel"].shape, spec.rank_of(layer_of(layer))
        adapters[layer] = own(layer_key, shape, rank, spec.init, num_agents)
    offsets = {"none": (), "lora": layers, "all": kernels}[spec.bias]
    for layer in offsets:
        bias = jnp.zeros((num_agents, *net[layer]["bias"].shape))
        adapters[layer] = {**adapters.get(layer, {}), "bias": bias}
    for name, value in net.items():
        if not isinstance(value, dict):
            adapters[name] = {"offset": jnp.zeros((num_agents, *value.shape))}
        elif spec.norms and has(value, "scale"):
            adapters[name] = {
                part: jnp.zeros((num_agents, *value[part].shape)) for part in ("scale", "bias")
            }
    return adapters


def init_factors(key: jax.Array, net: dict, spec: LoraSpec) -> dict:
    """{layer: parts} that the agents of a backbone have in common; none of kind `lora`.

    net is the backbone's parameters without leading axis.
    """
    make, layers = FORMS[spec.kind].factors, spec.layers(net)
    if make is None:
        return {}
    return {
        layer: make(layer_key, net[layer]["kernel"], spec.rank_of(layer_of(layer)))
        for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True)
    }


def delta(adapter: dict, spec: LoraSpec, layer: str) -> jax.Array | None:
    """The matrix [agent, d, k] of kind `lora`, of rank at most r; None if it has offsets only.

    Without an agent axis where the adapter has none.
    """
    return low_rank(adapter, spec.scaling(layer_of(layer)))


def merge(
    net: dict,
    axes: dict,
    adapters: dict,
    adapter_axes: dict,
    spec: LoraSpec,
    factors: Mapping[str, dict] = NOTHING,
) -> tuple[dict, dict]:
    """Each agent's merged weights (paper, Algorithm 3), and the axes to map over.

    Leaves of net and adapters carry a leading agent axis where `axes` and `adapter_axes` say 0,
    and none where they say None; adapted parts carry one where either does. Returns the same trees
    with the adapted parts replaced; all that is not adapted is passed on as it is. factors: what
    the agents of a backbone have in common (`init_factors`), with an agent axis where net has one.
    """
    net, axes, changed = dict(net), dict(axes), FORMS[spec.kind].merge
    for layer, adapter in adapters.items():
        by_agent = bool(jax.tree.leaves(adapter_axes[layer]))
        if "offset" in adapter:
            net[layer] = plus(net[layer], adapter["offset"])
            axes[layer] = 0 if by_agent else axes[layer]
            continue
        parts = {part: plus(net[layer][part], adapter[part]) for part in OFFSETS if part in adapter}
        own = {part: x for part, x in adapter.items() if part not in OFFSETS}
        if own:
            scale = spec.scaling(layer_of(layer))
            parts["kernel"] = changed(net[layer]["kernel"], own, factors.get(layer, {}), scale)
        net[layer] = {**net[layer], **parts}
        if by_agent:
            axes[layer] = {**axes[layer], **dict.fromkeys(parts, 0)}
    return net, axes


def adapted(base: Scheme, spec: LoraSpec, owners: tuple[int, ...] | None = None) -> Scheme:
    """LoRA on a frozen backbone: `base`'s network plus one trained adapter per agent.

    owners: the number of the adapter that every agent uses, where some use the same.
    A bank `factors` has what the agents of a backbone have in common, where the kind has such.
    Where ranks change the scheme is that of `ranks.scheduled`.
    """
    index, kind = base.banks["net"].index, FORMS[spec.kind]
    adapters = Bank(tuple(range(len(index))) if owners is None else owners)
    banks = {"net": base.banks["net"]._replace(trained=False), "adapters": adapters}
    if kind.factors is not None:
        banks["factors"] = Bank(index, kind.trained)

    def adopt(key, old):
        one = jax.tree.map(lambda x: x[0], old["net"])
        new = {"net": old["net"], "adapters": init_adapters(key, one, spec, adapters.entries)}
        if kind.factors is not None:  # one key for all backbones: what is random is the same
            factors_key = jax.random.fold_in(key, 1)
            new["factors"] = jax.vmap(lambda net: init_factors(factors_key, net, spec))(old["net"])
        return new

    def init(key, fresh):
        net_key, adapter_key = jax.random.split(key)
        return adopt(adapter_key, base.init(net_key, fresh))

    def combine(parts):
        (net, axes), (adapters, adapter_axes) = parts["net"], parts["adapters"]
        factors, _ = parts.get("factors", (NOTHING, None))
        return merge(net, axes, adapters, adapter_axes, spec, factors)

    return scheduled(Scheme(banks, init, adopt, combine, kind.additive), spec)


def _ps_lora(given):
    shared = ps(given.num_agents)
    return Sharing((shared, adapted(shared, given.spec, given.owners)), (shared, shared))


def _seps_lora(given):
    groups, shared = grouped(given.clusters), ps(given.num_agents)
    return Sharing((groups, adapted(groups, given.spec, given.owners)), (shared, shared))


register(
    "ps_lora", _ps_lora, keys=KeyedLoraKeys, cell="ps_lora",
    phases=(Phase("pretrain", "ps", until=1 / 3), Phase("finetune")),
)  # fmt: skip
register(
    "seps_lora", _seps_lora, keys=ClusteredLoraKeys, cell="seps_lora",
    phases=(Phase("pretrain", "seps", until=1 / 3), Phase("finetune")),
)  # fmt: skip
