"""What the libraries below must do right, or nothing here can be: it is run first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.optimised


def test_vmapped_products_with_small_matrices_are_right():
    """XLA of jaxlib 0.10.2 to 0.11.2 is wrong by 0.2 here on CPU (jax-ml/jax issue 39103)."""
    rows = np.random.default_rng(0).normal(size=(32769, 3)).astype(np.float32)
    square = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))
    np.testing.assert_allclose(square(rows), (rows.astype(float) ** 2).sum(1), rtol=1e-4)


@pytest.mark.parametrize("rank", [2, 4, 7])
def test_reductions_of_any_rank_are_right(rank):
    x = np.random.default_rng(1).normal(size=(3,) * rank).astype(np.float32)
    axes = tuple(range(0, rank, 2))
    reduced = jax.jit(lambda x: jnp.sum(x, axis=axes))(x)
    np.testing.assert_allclose(reduced, x.astype(float).sum(axes), rtol=1e-3, atol=1e-3)
