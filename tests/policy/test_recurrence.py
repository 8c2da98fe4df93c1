import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.policy import recurrence

TIME, BATCH, HIDDEN = 20, (2, 3), 5


@pytest.fixture(scope="module")
def sequence():
    """(kernel, bias, carry, gates), first: with episodes that begin in the middle."""
    rng = np.random.default_rng(0)
    shapes = (HIDDEN, 3 * HIDDEN), (3 * HIDDEN,), (*BATCH, HIDDEN), (TIME, *BATCH, 3 * HIDDEN)
    values = tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    return values, jnp.asarray(rng.random((TIME, *BATCH)) < 0.2)


def loss(function, values, first):
    """Depends on every hidden state, each in its own way, and once more on the last carry."""
    last, hiddens = function(*values, first)
    weights = jnp.sin(jnp.arange(hiddens.size)).reshape(hiddens.shape)
    return jnp.sum(weights * hiddens) + jnp.sum(jnp.square(last))


def test_long_sequences_are_the_same_function(sequence):
    values, first = sequence
    for ours, plain in zip(
        recurrence.gru(*values, first), recurrence._plain(*values, first), strict=True
    ):
        np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)


def test_the_backward_pass_of_long_sequences_equals_the_derived_one(sequence):
    values, first = sequence
    assert TIME > recurrence.SHORT
    ours, plain = (
        jax.grad(lambda values, f=f: loss(f, values, first))(values)
        for f in (recurrence.gru, recurrence._plain)
    )
    for one, other in zip(ours, plain, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


def test_every_agent_may_have_a_kernel_of_its_own(sequence):
    (kernel, bias, carry, gates), first = sequence
    kernels, biases = jnp.stack([kernel, -kernel]), jnp.stack([bias, 2 * bias])

    def total(function, kernels, biases):
        def one(kernel, bias):
            return loss(function, (kernel, bias, carry, gates), first)

        return jnp.sum(jax.vmap(one)(kernels, biases))

    ours, plain = (
        jax.grad(lambda k, b, f=f: total(f, k, b), argnums=(0, 1))(kernels, biases)
        for f in (recurrence.gru, recurrence._plain)
    )
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=5e-5)
