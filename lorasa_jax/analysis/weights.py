"""Agents' weight matrices, what adapters add to them, and their norms (paper, Tables 10-13)."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.sharing import Scheme, gather

Tree = Any
Matrices = dict[str, jax.Array]
LOG_STD = "log_std"


class Norms(NamedTuple):
    """Frobenius norms {layer: [agent]} of the backbone, of merged weights and of deltas.

    inner is the product <shared, delta>: merged^2 = shared^2 + delta^2 + 2 inner.
    """

    shared: Matrices
    merged: Matrices
    delta: Matrices
    inner: Matrices


def num_agents(scheme: Scheme) -> int:
    """The number of agents that a scheme is for."""
    return len(next(iter(scheme.banks.values())).index)


def per_agent(weights: tuple[Tree, Tree], agents: int) -> Tree:
    """A scheme's weights with a leading agent axis on every leaf, shared ones repeated."""
    tree, axes = weights

    def leaf(axis, x):
        return x if axis == 0 else jnp.broadcast_to(x, (agents, *x.shape))

    return jax.tree.map(leaf, axes, tree, is_leaf=lambda axis: axis is None)


def matrices(tree: Tree) -> Matrices:
    """The weight matrices {layer: [..., d, k]} of a network's parameters, in the network's order.

    These are the kernels, those of a head's outputs each by itself: `linear_7` gives the mean (or
    the logits), `linear_7_log_std` the spread where it has a head. Biases, LayerNorms and free
    vectors are left out.
    """
    return ordered(
        {
            name: value["kernel"]
            for name, value in tree.items()
            if isinstance(value, dict) and "kernel" in value
        }
    )


def spread(tree: Tree) -> Matrices:
    """{`log_std`: [..., 1, size]} where the spread of actions is a free vector, else nothing."""
    return {name: value[..., None, :] for name, value in tree.items() if name == LOG_STD}


def ordered(values: dict[str, Any]) -> dict[str, Any]:
    """By layer, in the network's order: by the number in its name (compiled code sorts by name).

    What has no number, such as a free vector, comes last.
    """

    def place(name):
        number = re.search(r"\d+", name)
        return (int(number[0]) if number else math.inf, name)

    return {layer: values[layer] for layer in sorted(values, key=place)}


def merged(scheme: Scheme, banks: dict[str, Tree]) -> Tree:
    """Every agent's weights, [agent, ...] on every leaf."""
    return per_agent(scheme.weights(banks), num_agents(scheme))


def backbone(scheme: Scheme, banks: dict[str, Tree]) -> Tree:
    """Every agent's network without its adapter, [agent, ...] on every leaf.

    Raises:
      ValueError: the scheme has no bank of whole networks.
    """
    return per_agent(gather(banks[_net(scheme)], scheme.banks["net"].index), num_agents(scheme))


def deltas(scheme: Scheme, banks: dict[str, Tree]) -> Tree:
    """What adapters add to every agent's network, [agent, ...]; zero where there are none.

    These are the weights on top of a backbone of zeros: exact, where a difference of merged
    weights and backbone is rounded to the backbone's precision. That difference it is under
    schemes whose change depends on the backbone, such as adapters of kind dora.

    Raises:
      ValueError: the scheme has no bank of whole networks.
    """
    net = _net(scheme)
    if not scheme.additive:
        return jax.tree.map(jnp.subtract, merged(scheme, banks), backbone(scheme, banks))
    return merged(scheme, {**banks, net: jax.tree.map(jnp.zeros_like, banks[net])})


def common(scheme: Scheme, banks: dict[str, Tree]) -> Tree:
    """Every agent's network with the mean of all agents' deltas instead of its own, [agent, ...].

    What adapters have learned in common stays, what differs between them is removed.

    Raises:
      ValueError: the scheme has no bank of whole networks.
    """
    return jax.tree.map(
        lambda net, delta: net + delta.mean(0, keepdims=True),
        backbone(scheme, banks),
        deltas(scheme, banks),
    )


def _net(scheme):
    if "net" not in scheme.banks:
        raise ValueError(f"a scheme of banks {', '.join(scheme.banks)} has no backbone.")
    return "net"


def frobenius(matrices_: Matrices) -> Matrices:
    """The Frobenius norm {layer: [...]} of every matrix [..., d, k]."""
    return {layer: jnp.linalg.norm(x, axis=(-2, -1)) for layer, x in matrices_.items()}


def inner(a: Matrices, b: Matrices) -> Matrices:
    """The sum of products of entries {layer: [...]} of two matrices [..., d, k]."""
    return {layer: jnp.sum(a[layer] * b[layer], axis=(-2, -1)) for layer in a}


def norms(scheme: Scheme, banks: dict[str, Tree]) -> Norms:
    """Norms of every layer and agent under a scheme that adapts a backbone.

    A free vector of spreads is a row `log_std` of its own.

    Raises:
      ValueError: the scheme has no bank of whole networks.
    """

    def parts(tree):
        return {**matrices(tree), **spread(tree)}

    shared, delta = parts(backbone(scheme, banks)), parts(deltas(scheme, banks))
    return Norms(
        shared=frobenius(shared),
        merged=frobenius(parts(merged(scheme, banks))),
        delta=frobenius(delta),
        inner=inner(shared, delta),
    )


def table(norms_: Norms) -> dict[str, dict[str, float]]:
    """{layer: {`shared`, `merged`, `delta`: mean of the norms over agents}} (Tables 10-13)."""
    return {
        layer: {
            column: float(getattr(norms_, column)[layer].mean())
            for column in ("shared", "merged", "delta")
        }
        for layer in ordered(norms_.merged)
    }
