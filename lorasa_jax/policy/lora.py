"""Low-rank adapters: one small trained delta per agent and weight matrix (paper, Sec. 2.2).

For a kernel W [d, k], agent i's weight is W + (alpha / r) A_i B_i with A_i [d, r] zero and
B_i [r, k] uniform on +-1/sqrt(r) at the start, as in the paper's Algorithm 2 and its authors' code.
Where r >= min(d, k) a factorisation would only cost: the delta is then a full zero matrix of
scaling 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.policy.networks import LAYERS


class LoraSpec(NamedTuple):
    """rank r, alpha (scaling alpha / r), and the layers to adapt, by name (see networks.LAYERS)."""

    rank: int
    alpha: float
    targets: Sequence[str] = LAYERS


def init_adapters(key: jax.Array, net: dict, spec: LoraSpec, num_agents: int) -> dict:
    """Adapters {layer: {"a", "b"} or {"full"} or vector}, every leaf with a leading agent axis.

    net is the backbone's parameters without leading axis. A head's extra outputs (linear_7_*)
    are adapted with the head. A free log_std vector gets a zero offset per agent (authors' code).
    """
    adapters = {}
    layers = sorted(layer for layer in net if _target(layer) in spec.targets)
    for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True):
        d, k = net[layer]["kernel"].shape
        if spec.rank >= min(d, k):
            adapters[layer] = {"full": jnp.zeros((num_agents, d, k))}
        else:
            bound = spec.rank**-0.5
            adapters[layer] = {
                "a": jnp.zeros((num_agents, d, spec.rank)),
                "b": jax.random.uniform(
                    layer_key, (num_agents, spec.rank, k), minval=-bound, maxval=bound
                ),
            }
    for name, value in net.items():
        if not isinstance(value, dict):
            adapters[name] = {"offset": jnp.zeros((num_agents, *value.shape))}
    return adapters


def delta(adapter: dict, spec: LoraSpec) -> jax.Array:
    """The adapter's matrix [agent, d, k] (or vector [agent, k]), of rank at most r."""
    if "a" in adapter:
        scaling = spec.alpha / spec.rank
        return scaling * jnp.einsum("...dr,...rk->...dk", adapter["a"], adapter["b"])
    (only,) = adapter.values()
    return only


def merge(net: dict, axes: dict, adapters: dict, spec: LoraSpec) -> tuple[dict, dict]:
    """Each agent's merged weights (paper, Algorithm 3), and the axes to map over.

    net's leaves carry a leading agent axis where `axes` says 0. Returns the same trees with the
    adapted kernels replaced; all that is not adapted is passed on as it is.
    """
    net, axes = dict(net), dict(axes)
    for layer, adapter in adapters.items():
        if "offset" in adapter:
            net[layer], axes[layer] = net[layer] + delta(adapter, spec), 0
        else:
            kernel = net[layer]["kernel"] + delta(adapter, spec)
            net[layer] = {**net[layer], "kernel": kernel}
            axes[layer] = {**axes[layer], "kernel": 0}
    return net, axes


def _target(layer):
    return "linear_7" if layer.startswith("linear_7_") else layer
