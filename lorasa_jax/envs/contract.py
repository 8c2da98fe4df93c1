"""Checks that an environment fulfils the protocol of `envs.types`, without playing it."""

from typing import Any

import jax
import jax.numpy as jnp

from lorasa_jax.envs.types import Box, Discrete, TimeStep
from lorasa_jax.errors import ConfigError

KINDS = {"a float": jnp.floating, "a boolean": jnp.bool_, "an integer": jnp.integer}


def check(env: Any, name: str) -> None:
    """Evaluates reset and step abstractly, and compares every field with what it must be.

    Raises:
      ConfigError: in one sentence that names the field, what it is and what it must be.
    """
    _check_attributes(env, name)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, timestep = _evaluated(env.reset, name, "reset", key)
    _check_timestep(env, name, "reset", timestep)
    discrete = isinstance(env.action_space, Discrete)
    shape = (env.num_agents,) if discrete else (env.num_agents, env.action_space.size)
    actions = jax.ShapeDtypeStruct(shape, jnp.int32 if discrete else jnp.float32)
    after, timestep = _evaluated(env.step, name, "step", key, state, actions)
    _check_timestep(env, name, "step", timestep)
    _check_state(name, state, after)
    _check_types(env, name, state)


def check_legal(env: Any, name: str) -> None:
    """Resets the environment once; every active agent must have something to choose from.

    Raises:
      ConfigError: one has not.
    """
    _, timestep = jax.jit(env.reset)(jax.random.key(0))
    without = timestep.active & ~timestep.legal.any(-1)
    if bool(without.any()):
        raise ConfigError(
            f"env={name}: agent {int(jnp.argmax(without))} is active and has no legal action after "
            "reset; mark at least one in timestep.legal."
        )


def _check_attributes(env, name):
    for attribute in ("num_agents", "observation_size", "state_size", "max_steps"):
        value = getattr(env, attribute, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"env={name}: {attribute} is {value!r} and must be a whole number of at least 1."
            )
    if len(getattr(env, "agents", ())) != env.num_agents:
        raise ConfigError(
            f"env={name}: agents must be the names of its {env.num_agents} agents, and are "
            f"{getattr(env, 'agents', None)!r}."
        )
    if not isinstance(getattr(env, "action_space", None), Discrete | Box):
        raise ConfigError(
            f"env={name}: action_space is {getattr(env, 'action_space', None)!r} and must be "
            "envs.Discrete(n) or envs.Box(size)."
        )


def _evaluated(function, name, called, *arguments):
    try:
        result = jax.eval_shape(function, *arguments)
    except Exception as error:
        raise ConfigError(
            f"env={name}: {called} fails ({type(error).__name__}: {first_line(error)}); mend it."
        ) from error
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], TimeStep)):
        raise ConfigError(f"env={name}: {called} must return (state, envs.TimeStep).")
    return result


def _check_timestep(env, name, called, timestep):
    agents, width = env.num_agents, getattr(env.action_space, "n", None)
    width = env.action_space.size if width is None else width
    expected = {
        "obs": ("a float", (agents, env.observation_size)),
        "state": ("a float", (agents, env.state_size)),
        "reward": ("a float", ()),
        "terminated": ("a boolean", ()),
        "truncated": ("a boolean", ()),
        "active": ("a boolean", (agents,)),
        "legal": ("a boolean", (agents, width)),
    }
    for field, (kind, shape) in expected.items():
        _check_array(
            getattr(timestep, field), name, f"timestep.{field} after {called}", kind, shape
        )
    if not isinstance(timestep.info, dict):
        raise ConfigError(f"env={name}: timestep.info after {called} must be a dictionary.")
    if "won" in timestep.info:
        won = timestep.info["won"]
        if jnp.shape(won) != () or jnp.result_type(won) not in (jnp.bool_, jnp.float32, jnp.int32):
            raise ConfigError(
                f"env={name}: timestep.info['won'] after {called} is {_described(won)} and must be "
                "a boolean without axes."
            )


def _check_array(x, name, field, kind, shape):
    if not hasattr(x, "shape"):
        raise ConfigError(f"env={name}: {field} is {x!r} and must be an array.")
    if x.shape != shape or not jnp.issubdtype(x.dtype, KINDS[kind]):
        axes = f"of shape {list(shape)}" if shape else "without axes"
        raise ConfigError(f"env={name}: {field} is {_described(x)} and must be {kind} {axes}.")


def _described(x):
    axes = f"of shape {list(x.shape)}" if x.shape else "without axes"
    return f"{jnp.result_type(x).name} {axes}"


def _check_types(env, name, state):
    """The optional `types`, and what says which of them an agent is of."""
    types = getattr(env, "types", ())
    if not types:
        return
    if not isinstance(types, tuple) or not all(isinstance(text, str) for text in types):
        raise ConfigError(f"env={name}: types is {types!r} and must be a tuple of names.")
    numbers = getattr(env, "type_of", None)
    if numbers is not None:
        ok = isinstance(numbers, tuple) and len(numbers) == env.num_agents
        if not ok or not all(isinstance(n, int) and 0 <= n < len(types) for n in numbers):
            raise ConfigError(
                f"env={name}: type_of is {numbers!r} and must be a number from 0 to "
                f"{len(types) - 1} for each of the {env.num_agents} agents."
            )
        return
    if not hasattr(env, "types_of"):
        raise ConfigError(
            f"env={name}: types is given, and neither type_of nor types_of(state) says which an "
            "agent is of; add one of them."
        )
    found = jax.eval_shape(env.types_of, state)
    _check_array(found, name, "types_of(state)", "an integer", (env.num_agents,))


def _check_state(name, before, after):
    one, other = (jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (before, after))
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ConfigError(
            f"env={name}: the state after step has other parts than that after reset; return the "
            "same structure from both."
        )
    for (path, a), (_, b) in zip(one, other, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ConfigError(
                f"env={name}: state{jax.tree_util.keystr(path)} is {_described(a)} after reset and "
                f"{_described(b)} after step; return the same from both."
            )


def first_line(error: Exception) -> str:
    """What an exception says first, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message").rstrip(".")[:200]
