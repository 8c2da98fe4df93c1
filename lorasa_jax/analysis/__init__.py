"""What agents' weights, behaviour and costs are like: pure functions of parameters and experience.

Nothing here is compiled by itself; wrap a call in `jax.jit` where it is repeated.
"""
