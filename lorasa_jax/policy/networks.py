"""The actor's and the critic's network: one agent's view, knowing nothing of sharing.

Seven weight matrices under the names of the paper's Table 10, each (but the recurrent one) behind
a LayerNorm: linear_1, linear_2, linear_3, gru_x_4, gru_h_5, linear_6, linear_7. With an LSTM the
two in the middle are lstm_x_4 and lstm_h_5; a feed-forward network has neither. A shallower one
lacks linear_3, or linear_2 too; the others keep their names.

Products are taken in full float32 on every device, as in PyTorch; JAX alone would round their
factors to 10 bits (TF32) on NVIDIA's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import broadcast_to_rank

from lorasa_jax.keys import key
from lorasa_jax.policy.distributions import STD_LIMIT, SquashedGaussian
from lorasa_jax.policy.recurrence import CELLS, matmul

HEAD = "linear_7"
_BEFORE, _AFTER = ("linear_1", "linear_2", "linear_3"), ("linear_6", HEAD)
LAYERS_OF = {
    "gru": (*_BEFORE, "gru_x_4", "gru_h_5", *_AFTER),
    "lstm": (*_BEFORE, "lstm_x_4", "lstm_h_5", *_AFTER),
    "ff": (*_BEFORE, *_AFTER),
}
LAYERS = LAYERS_OF["gru"]
DEPTH = len(_BEFORE)
EPSILON = 1e-5


@dataclass(frozen=True)
class Network:
    """How actors and critics are built; see RecurrentNetwork and distributions.SquashedGaussian."""

    hidden: int = key(None, "width of every hidden layer", least=1, cell=True)
    kind: str = key("gru", "recurrent layer, or none (feed-forward)", choices=tuple(LAYERS_OF))
    log_std: str = key(
        "vector", "spread of continuous actions: a free vector (the authors' code), or a linear "
        "head (the paper's text), with which exploration dies early",
        choices=("vector", "linear"),
    )  # fmt: skip
    std_min: float = key(
        0.0, "least standard deviation of continuous actions", least=0, below=STD_LIMIT, later=True
    )
    depth: int = key(
        DEPTH, "linear layers before the recurrent one", least=1, most=DEPTH, later=True
    )
    layer_norm: bool = key(True, "a LayerNorm before every layer", later=True)

    def gaussian(self, size: int) -> SquashedGaussian:
        """The distribution of continuous actions of `size` dimensions."""
        return SquashedGaussian(size, **_shared(self, SquashedGaussian))

    def actor(self, distribution) -> "RecurrentNetwork":
        """The network whose outputs a distribution reads."""
        return RecurrentNetwork(distribution.heads, distribution.vectors, **self.form)

    def critic(self) -> "RecurrentNetwork":
        """The network of values."""
        return RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, **self.form)

    @property
    def form(self) -> dict[str, Any]:
        """{attribute of RecurrentNetwork: value}: those whose names are keys here."""
        return _shared(self, RecurrentNetwork)


def _shared(keys, kind):
    """{field of the dataclass `kind`: value} of those fields that are keys of the same name."""
    names = {field.name for field in fields(kind)} & {field.name for field in fields(Network)}
    return {name: getattr(keys, name) for name in sorted(names)}


def layers_of(kind: str, depth: int = DEPTH) -> tuple[str, ...]:
    """The names of a network's weight matrices, in the order in which they are applied."""
    return tuple(name for name in LAYERS_OF[kind] if name not in _BEFORE[depth:])


def layer_of(name: str) -> str:
    """The layer of a parameter's module: a head's further outputs belong to its layer."""
    return HEAD if name.startswith(f"{HEAD}_") else name


def standardise(x: jax.Array, like: jax.Array | None = None) -> jax.Array:
    """LayerNorm over the last axis without its affine part, by the moments of `like` or its own."""
    like = x if like is None else like
    mean = like.mean(-1, keepdims=True)
    variance = jnp.square(like - mean).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + EPSILON)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., d] times kernel [d, k]; its kernel gradient comes out in the kernel's own layout.

    JAX's own rule forms the transpose, for which XLA's CPU backend first transposes the wider of
    the two factors: about 5 % of an epoch.
    """
    return matmul(x, kernel)


def _product_forward(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _product_backward(residuals, gradient):
    x, kernel = residuals
    count = math.prod(x.shape[:-1])  # not -1, which fails where there are no features
    rows = x.reshape(count, x.shape[-1]), gradient.reshape(count, gradient.shape[-1])
    return matmul(gradient, kernel.T), matmul(rows[0].T, rows[1])


product.defvjp(_product_forward, _product_backward)


class Views(NamedTuple):
    """A network's prepared inputs whose first features are the same for all agents, kept once.

    common [..., 1 or no agent axis, ..., c]; own [..., agent, ..., features - c].
    """

    common: jax.Array
    own: jax.Array


class Norm(nn.Module):
    """The affine part of a LayerNorm over `features`: returns (scale, bias), applied by Linear."""

    features: int

    @nn.compact
    def __call__(self):
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return scale, bias


def width_of(x: jax.Array | Views) -> int:
    """The number of features."""
    return sum(part.shape[-1] for part in jax.tree.leaves(x))


class Linear(nn.Module):
    """x W + b for standardised x, with the LayerNorm's affine part folded into W and b.

    (s x + c) W + b = x (s W) + (c W + b): the same function, but the affine part touches
    matrices of 64 x 64 instead of every activation, forward and backward.
    """

    features: int
    gain: float
    bias_init: float = 0.0

    @nn.compact
    def __call__(self, x, norm=None):
        kernel = self.param(
            "kernel", nn.initializers.orthogonal(self.gain), (width_of(x), self.features)
        )
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        if norm is not None:
            scale, offset = norm
            bias = matmul(offset, kernel) + bias
            kernel = scale[:, None] * kernel
        if isinstance(x, Views):
            common = x.common.shape[-1]
            individual = product(x.own, kernel[common:])
            individual = individual + broadcast_to_rank(bias, individual.ndim)
            return product(x.common, kernel[:common]) + individual
        return product(x, kernel) + broadcast_to_rank(bias, x.ndim)


class RecurrentNetwork(nn.Module):
    """Up to three linear layers, a recurrent one (if any), one linear layer, and linear heads.

    Attributes:
      heads: output name -> (features, orthogonal gain, bias at initialisation); the first is
        called linear_7 in the parameters, the others by their own names.
      vectors: output name -> (features, initial value): free parameters that depend on no input.
      hidden: width of every hidden layer.
      kind: `gru`, `lstm` or `ff` (feed-forward, whose carry means nothing).
      depth: linear layers before the recurrent one: 3 (the paper's), 2 or 1.
      layer_norm: whether every layer's input is standardised first, as in the paper.

    `__call__(carry [..., carry_size], x [time, ..., features], first [time, ...])` returns the last
    carry and a dictionary of outputs [time, ..., features]. Where `first` is true the carry is
    zeroed before the step. `prepared` says that x went through `prepare` before; then it may be
    `Views` too.
    """

    heads: Mapping[str, tuple[int, float, float]]
    vectors: Mapping[str, tuple[int, float]]
    hidden: int = 64
    kind: str = "gru"
    depth: int = DEPTH
    layer_norm: bool = True

    @nn.compact
    def __call__(self, carry, x, first, *, prepared=False):
        root2 = float(np.sqrt(2.0))
        for i in range(1, self.depth + 1):
            normed = self._normed(x, i, prepared and i == 1)
            x = nn.relu(Linear(self.hidden, root2, name=f"linear_{i}")(*normed))
        if self.kind in CELLS:
            cell, width = CELLS[self.kind]
            project = Linear(width * self.hidden, 1.0, name=f"{self.kind}_x_4")
            gates = project(*self._normed(x, 4))
            carry, x = cell(self.hidden, name=f"{self.kind}_h_5")(carry, gates, first)
        x = nn.relu(Linear(self.hidden, root2, name="linear_6")(*self._normed(x, 6)))
        x = self._normed(x, 7)
        outputs = {}
        for i, (output, (features, gain, bias)) in enumerate(self.heads.items()):
            name = f"{HEAD}_{output}" if i else HEAD
            outputs[output] = Linear(features, gain, bias, name=name)(*x)
        for output, (features, value) in self.vectors.items():
            vector = self.param(output, nn.initializers.constant(value), (features,))
            outputs[output] = jnp.broadcast_to(vector, (*x[0].shape[:-1], features))
        return carry, outputs

    def prepare(self, x, alike: int = 0):
        """The part of a forward pass that no parameter enters, done once for all passes over x.

        alike: how many first features of x [..., agent, features] are the same for all agents,
        who have the same mean and variance too; with any, the result is `Views`.
        """
        if not alike:
            return standardise(x) if self.layer_norm else x
        first_agent = x[..., :1, :]
        views = Views(first_agent[..., :alike], x[..., alike:])
        return (
            Views(*[standardise(part, first_agent) for part in views]) if self.layer_norm else views
        )

    def _normed(self, x, number, prepared=False) -> tuple[Any, Any]:
        """The input of layer `number`, and the affine part of its LayerNorm, if it has one."""
        if not self.layer_norm:
            return x, None
        x = x if prepared else self.prepare(x)
        return x, Norm(width_of(x), name=f"norm_{number}")()

    @property
    def form(self) -> dict[str, Any]:
        """{key of Network: value}: what it is built of, without its outputs."""
        return _shared(self, RecurrentNetwork)

    @property
    def carry_size(self) -> int:
        return {"gru": self.hidden, "lstm": 2 * self.hidden, "ff": 1}[self.kind]

    def initial_carry(self, *shape: int) -> jax.Array:
        return jnp.zeros((*shape, self.carry_size))


def parameters(network: RecurrentNetwork, key: jax.Array, features: int) -> dict:
    """Fresh parameters of `network` for inputs of width `features`."""
    carry = network.initial_carry(1)
    x = jnp.zeros((1, 1, features))
    return cast(dict, network.init(key, carry, x, jnp.zeros((1, 1), bool))["params"])
