import jax
import pytest


@pytest.fixture(scope="module")
def quick_compiler():
    """Compiles in half the time; results need not be fast here, only right."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
