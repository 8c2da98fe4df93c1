import jax
import pytest
from mujoco_loop import harvest, loop_of


@pytest.fixture(scope="session")
def reference():
    """The Ant of profile `lorasa` in a plain loop."""
    return loop_of("ant")


@pytest.fixture
def touching():
    """PhysState [60, ...]: the Ant in contact with the floor."""
    return harvest("ant")


@pytest.fixture
def x64():
    """float64 in all threads: callbacks may run outside the one that a context manager changes."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
