"""Compiled code calls Python functions by name, and such programs are kept on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import host_call

DOUBLE = jax.ShapeDtypeStruct((3,), jnp.float32)


def double(argument, out):
    out[:] = 2.0 * argument


def test_a_function_works_on_the_memory_of_compiled_code():
    called = jax.jit(lambda x: host_call.call("test_double", double, DOUBLE, x) + 1.0)
    np.testing.assert_array_equal(called(jnp.arange(3.0)), [1.0, 3.0, 5.0])


def test_a_batch_is_one_call():
    shapes = []

    def fill(argument, out):
        shapes.append(argument.shape)
        double(argument, out)

    called = jax.jit(jax.vmap(lambda x: host_call.call("test_batch", fill, DOUBLE, x)))
    np.testing.assert_array_equal(called(jnp.ones((5, 3))), np.full((5, 3), 2.0))
    assert shapes == [(5, 3)]


def test_what_a_function_raises_comes_back_as_an_error():
    def fill(argument, out):
        raise ValueError("no such robot")

    with pytest.raises(jax.errors.JaxRuntimeError, match="no such robot"):
        jax.block_until_ready(host_call.call("test_raises", fill, DOUBLE, jnp.ones(3)))


def test_programs_with_the_native_engine_are_kept_and_used_again(tmp_path):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update(names[0], str(tmp_path))
    jax.config.update(names[1], 0.0)
    compilation_cache.reset_cache()
    try:
        results = []
        for _ in range(2):  # an environment of its own each time, as in another process
            env = envs.make("hopper_3x1", engine="native")
            state, _ = env.reset(jax.random.key(0))

            def step(state, env=env):
                actions = jnp.full((env.num_agents, env.action_space.size), 0.5)
                return env.step(jax.random.key(1), state, actions)[1].obs

            results.append(np.asarray(jax.jit(step)(state)))
            kept = sorted(path.name for path in tmp_path.glob("jit_step-*-cache"))
            assert len(kept) == 1
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    np.testing.assert_array_equal(*results)
