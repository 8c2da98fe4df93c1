"""Recurrent layers over a sequence: an LSTM, and a GRU with its own backward pass for long ones."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank

SHORT = 16  # steps up to which a loop is unrolled

matmul = partial(jnp.matmul, precision="float32")  # see networks


def unrolled(steps: int) -> int:
    """Steps in a loop's body: a chunk whole, across which XLA overlaps and fuses, else one.

    Measured on two cores: ten of 128 steps take 1.4 times as long as one at a time.
    """
    return steps if steps <= SHORT else 1


def gru(
    kernel: jax.Array, bias: jax.Array, carry: jax.Array, gates: jax.Array, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """PyTorch's GRU on inputs projected beforehand, gates in the order reset, update, new.

    kernel [hidden, 3 hidden], bias [3 hidden], carry [..., hidden], gates [time, ..., 3 hidden],
    first [time, ...]: where true the carry is zeroed before the step. Returns the last carry and
    all hidden states [time, ..., hidden].
    """
    return (_plain if gates.shape[0] <= SHORT else _long)(kernel, bias, carry, gates, first)


def _cell(kernel, bias, hidden, gates):
    """(new hidden state, what its derivatives need)."""
    from_hidden = matmul(hidden, kernel) + broadcast_to_rank(bias, hidden.ndim)
    reset_h, update_h, new_h = jnp.split(from_hidden, 3, axis=-1)
    reset_x, update_x, new_x = jnp.split(gates, 3, axis=-1)
    reset = nn.sigmoid(reset_x + reset_h)
    update = nn.sigmoid(update_x + update_h)
    new = jnp.tanh(new_x + reset * new_h)
    return (1.0 - update) * new + update * hidden, (hidden, reset, update, new, new_h)


def _plain(kernel, bias, carry, gates, first):
    def step(hidden, inputs):
        gates, first = inputs
        hidden = jnp.where(first[..., None], 0.0, hidden)
        hidden, _ = _cell(kernel, bias, hidden, gates)
        return hidden, hidden

    return jax.lax.scan(step, carry, (gates, first), unroll=unrolled(gates.shape[0]))


@jax.custom_vjp
def _long(kernel, bias, carry, gates, first):
    return _plain(kernel, bias, carry, gates, first)


def _long_forward(kernel, bias, carry, gates, first):
    def step(hidden, inputs):
        gates, first = inputs
        hidden = jnp.where(first[..., None], 0.0, hidden)
        hidden, kept = _cell(kernel, bias, hidden, gates)
        return hidden, (hidden, kept)

    last, (hiddens, kept) = jax.lax.scan(step, carry, (gates, first))
    return (last, hiddens), (kernel, kept, first)


def _long_backward(residuals, gradients):
    """The kernel's gradient is one product over the whole sequence instead of a sum of many.

    So are all factors that do not depend on the gradient that flows back through time.
    """
    kernel, (hidden, reset, update, new, new_h), first = residuals
    last, outer = gradients
    by_new = (1.0 - update) * (1.0 - new * new)
    by_update = (hidden - new) * update * (1.0 - update)
    by_reset = new_h * reset * (1.0 - reset)

    def step(gradient, inputs):
        outer, by_new, by_update, by_reset, reset, update, first = inputs
        gradient = gradient + outer
        new_x = gradient * by_new
        recurrent = jnp.concatenate(
            [new_x * by_reset, gradient * by_update, new_x * reset], axis=-1
        )
        gradient = gradient * update + matmul(recurrent, kernel.T)
        return jnp.where(first[..., None], 0.0, gradient), (recurrent, new_x)

    scanned = outer, by_new, by_update, by_reset, reset, update, first
    carry, (recurrent, new_x) = jax.lax.scan(step, last, scanned, reverse=True)
    size = hidden.shape[-1]
    rows = recurrent.reshape(-1, 3 * size)
    gates = jnp.concatenate([recurrent[..., : 2 * size], new_x], axis=-1)
    return matmul(hidden.reshape(-1, size).T, rows), rows.sum(0), carry, gates, None


_long.defvjp(_long_forward, _long_backward)


class GRU(nn.Module):
    """PyTorch's GRU on inputs projected beforehand, gates in the order reset, update, new."""

    hidden: int

    @nn.compact
    def __call__(self, carry, gates, first):
        kernel = self.param(
            "kernel", nn.initializers.orthogonal(1.0), (self.hidden, 3 * self.hidden)
        )
        bias = self.param("bias", nn.initializers.zeros, (3 * self.hidden,))
        return gru(kernel, bias, carry, gates, first)


class LSTM(nn.Module):
    """PyTorch's LSTM on inputs projected beforehand, gates in the order in, forget, cell, out.

    The carry [..., 2 hidden] is the hidden state and the cell state, side by side.
    """

    hidden: int

    @nn.compact
    def __call__(self, carry, gates, first):
        kernel = self.param(
            "kernel", nn.initializers.orthogonal(1.0), (self.hidden, 4 * self.hidden)
        )
        bias = self.param("bias", nn.initializers.zeros, (4 * self.hidden,))

        def step(carry, inputs):
            gates, first = inputs
            hidden, cell = jnp.split(jnp.where(first[..., None], 0.0, carry), 2, axis=-1)
            gates = gates + matmul(hidden, kernel) + broadcast_to_rank(bias, gates.ndim)
            parts = jnp.split(gates, 4, axis=-1)
            enter, forget, leave = (nn.sigmoid(parts[i]) for i in (0, 1, 3))
            cell = forget * cell + enter * jnp.tanh(parts[2])
            hidden = leave * jnp.tanh(cell)
            return jnp.concatenate([hidden, cell], axis=-1), hidden

        return jax.lax.scan(step, carry, (gates, first), unroll=unrolled(gates.shape[0]))


# Recurrent cells, and how many gates each has.
CELLS = {"gru": (GRU, 3), "lstm": (LSTM, 4)}
