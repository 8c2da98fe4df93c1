"""Low-rank adapters: one small trained delta per agent and weight matrix (paper, Sec. 2.2).

For a kernel W [d, k], agent i's weight is W + (alpha / r) A_i B_i with A_i [d, r] zero and
B_i [r, k] uniform on +-1/sqrt(r) at the start, as in the paper's Algorithm 2 and its authors' code.
Where r >= min(d, k) a factorisation would only cost: the delta is then a full zero matrix of
scaling 1. The words are PEFT's: rank, alpha, targets, rank_pattern, bias.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.policy.networks import LAYERS, layer_of
from lorasa_jax.policy.recurrence import matmul


class LoraSpec(NamedTuple):
    """What is adapted, and how.

    rank r and alpha (scaling alpha / r; None is alpha = r) of the layers that `targets` match, by
    name or shell pattern (see networks.LAYERS); rank_pattern and alpha_pattern, pairs of pattern
    and number, replace them for the layers they match, the first match counting.
    bias: `none`, `lora` (biases of adapted layers get an offset per agent) or `all` (all biases).
    norms: whether LayerNorms get offsets per agent. Patterns that match nothing are for the
    configuration to refuse.
    """

    rank: int
    alpha: float | None = None
    targets: Sequence[str] = LAYERS
    rank_pattern: Sequence[tuple[str, int]] = ()
    alpha_pattern: Sequence[tuple[str, float]] = ()
    bias: str = "none"
    norms: bool = False

    def adapts(self, layer: str) -> bool:
        return any(fnmatchcase(layer, pattern) for pattern in self.targets)

    def rank_of(self, layer: str) -> int:
        return _first(self.rank_pattern, layer, self.rank)

    def scaling(self, layer: str) -> float:
        alpha = _first(self.alpha_pattern, layer, self.alpha)
        return 1.0 if alpha is None else alpha / self.rank_of(layer)


def _first(patterns, layer, otherwise):
    return next((value for pattern, value in patterns if fnmatchcase(layer, pattern)), otherwise)


def init_adapters(key: jax.Array, net: dict, spec: LoraSpec, num_agents: int) -> dict:
    """Adapters {layer: {"a", "b"} or {"full"}, and offsets}, every leaf with a leading agent axis.

    net is the backbone's parameters without leading axis. A head's extra outputs (linear_7_*)
    are adapted with the head. A free log_std vector gets a zero offset per agent (authors' code).
    """
    adapters = {}
    kernels = sorted(name for name, value in net.items() if _has(value, "kernel"))
    layers = [
        name for name in kernels if spec.adapts(layer_of(name)) and spec.rank_of(layer_of(name))
    ]
    for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
        d, k = net[layer]["kernel"].shape
        rank = spec.rank_of(layer_of(layer))
        if rank >= min(d, k):
            adapters[layer] = {"full": jnp.zeros((num_agents, d, k))}
            continue
        bound = rank**-0.5
        b = jax.random.uniform(layer_key, (num_agents, rank, k), minval=-bound, maxval=bound)
        adapters[layer] = {"a": jnp.zeros((num_agents, d, rank)), "b": b}
    offsets = {"none": (), "lora": layers, "all": kernels}[spec.bias]
    for layer in offsets:
        bias = jnp.zeros((num_agents, *net[layer]["bias"].shape))
        adapters[layer] = {**adapters.get(layer, {}), "bias": bias}
    for name, value in net.items():
        if not isinstance(value, dict):
            adapters[name] = {"offset": jnp.zeros((num_agents, *value.shape))}
        elif spec.norms and _has(value, "scale"):
            adapters[name] = {
                part: jnp.zeros((num_agents, *value[part].shape)) for part in ("scale", "bias")
            }
    return adapters


def delta(adapter: dict, spec: LoraSpec, layer: str) -> jax.Array | None:
    """The adapter's matrix [agent, d, k], of rank at most r; None if it has offsets only.

    Without an agent axis where the adapter has none.
    """
    if "a" in adapter:
        product = matmul(adapter["a"], adapter["b"])
        return spec.scaling(layer_of(layer)) * product
    return adapter.get("full")


def merge(
    net: dict, axes: dict, adapters: dict, adapter_axes: dict, spec: LoraSpec
) -> tuple[dict, dict]:
    """Each agent's merged weights (paper, Algorithm 3), and the axes to map over.

    Leaves of net and adapters carry a leading agent axis where `axes` and `adapter_axes` say 0,
    and none where they say None; adapted parts carry one where either does. Returns the same trees
    with the adapted parts replaced; all that is not adapted is passed on as it is.
    """
    net, axes = dict(net), dict(axes)
    for layer, adapter in adapters.items():
        by_agent = bool(jax.tree.leaves(adapter_axes[layer]))
        if "offset" in adapter:
            net[layer] = net[layer] + adapter["offset"]
            axes[layer] = 0 if by_agent else axes[layer]
            continue
        changes = {part: adapter[part] for part in ("bias", "scale") if part in adapter}
        matrix = delta(adapter, spec, layer)
        if matrix is not None:
            changes["kernel"] = matrix
        net[layer] = {**net[layer], **{part: net[layer][part] + x for part, x in changes.items()}}
        if by_agent:
            axes[layer] = {**axes[layer], **dict.fromkeys(changes, 0)}
    return net, axes


def _has(value, part):
    return isinstance(value, dict) and part in value
