"""LoRASA: low-rank agent-specific adaptation for multi-agent reinforcement learning, in JAX."""

import importlib
import os
import sys

from lorasa_jax import terminal

terminal.begin()  # before anything that takes long

# MuJoCo's C engine is called back from inside compiled code. With asynchronous dispatch a
# callback can wait for an argument that its own thread would have to produce. JAX reads the
# variable when it is imported, which `lorasa --help` need not wait for.
os.environ["JAX_CPU_ENABLE_ASYNC_DISPATCH"] = "false"
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_cpu_enable_async_dispatch", False)

# XLA compares a program from the cache with this CPU by what its compiler prefers too, and prints
# an error of 3,000 characters a program. compile_cache sees to it that instructions are the same.
# Where a run's host is lost, JAX ends the others with a stack trace; lorasa_jax.hosts says it.
_hosts = any(word.startswith("hosts=") for word in sys.argv)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "4" if _hosts else "3")

__version__ = "0.2.0"

# The Python API, imported when it is first used, so that the package itself stays light.
_LAZY = {
    "train": "lorasa_jax.training.api",
    "configure": "lorasa_jax.training.api",
    "make_train": "lorasa_jax.training.pure",
    "numbers_of": "lorasa_jax.training.numbers",
    "load": "lorasa_jax.loading",
    "load_all": "lorasa_jax.loading",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
