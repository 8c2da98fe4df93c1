"""LoRASA: low-rank agent-specific adaptation for multi-agent reinforcement learning, in JAX."""

import jax

# MuJoCo's C engine is called back from inside compiled code. With asynchronous dispatch a
# callback can wait for an argument that its own thread would have to produce.
jax.config.update("jax_cpu_enable_async_dispatch", False)

__version__ = "0.1.0"
