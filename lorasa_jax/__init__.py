"""LoRASA: low-rank agent-specific adaptation for multi-agent reinforcement learning, in JAX."""

import importlib

from lorasa_jax import terminal

terminal.begin()  # before imports that take long

import jax  # noqa: E402

# MuJoCo's C engine is called back from inside compiled code. With asynchronous dispatch a
# callback can wait for an argument that its own thread would have to produce.
jax.config.update("jax_cpu_enable_async_dispatch", False)

__version__ = "0.2.0"

# The Python API, imported when it is first used, so that the package itself stays light.
_LAZY = {
    "train": "lorasa_jax.training.api",
    "load": "lorasa_jax.loading",
    "load_all": "lorasa_jax.loading",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
