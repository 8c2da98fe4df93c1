"""A state as Orbax stores it: no random keys, no empty arrays, no fields of None."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import hosts


def to_numpy(state: Any) -> Any:
    """A state's arrays, as they are stored; those that lie on several hosts stay there."""
    read = lambda x: np.asarray(x) if hosts.is_here(x) else x  # noqa: E731
    return storable(jax.tree.map(read, _keys_to_data(state)))


def abstract(like: Any) -> Any:
    """Zeros for every array of a state (never read) but keys, which are what they are made of."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(_keys_to_data, like))


def storable(tree: Any) -> Any:
    """The tree with arrays of one zero in place of empty ones, which Orbax refuses to store.

    Tuples that have fields of None are dictionaries without those fields: to Orbax a field of None
    differs from one that is absent, as before it was added.
    """
    return _without_none(jax.tree.map(lambda x: x if x.size else np.zeros(1, x.dtype), tree))


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _keys_to_data(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def restored(like: Any, stored: Any) -> jax.Array:
    """A stored array as the state has it: a key, an empty array, or what was stored."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(stored))
    return jnp.asarray(stored) if like.size else jnp.zeros(like.shape, like.dtype)


def _without_none(tree) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(x) for key, x in tree.items()}
    if not hasattr(tree, "_fields"):
        return tuple(map(_without_none, tree)) if isinstance(tree, tuple) else tree
    if any(x is None for x in tree):
        return {key: _without_none(x) for key, x in tree._asdict().items() if x is not None}
    return type(tree)(*map(_without_none, tree))


def with_none(like: Any, stored: Any) -> Any:
    """A tree of `storable`, in the structure of `like`."""
    if isinstance(like, dict):
        return {key: with_none(like[key], x) for key, x in stored.items()}
    if not hasattr(like, "_fields"):
        return tuple(map(with_none, like, stored)) if isinstance(like, tuple) else stored
    parts = stored if isinstance(stored, dict) else stored._asdict()
    fields = like._asdict().items()
    return type(like)(*(None if x is None else with_none(x, parts[key]) for key, x in fields))
