"""Resetting those of many environments that have ended."""

import jax
import jax.numpy as jnp

RESETS = 8  # groups in which all environments would be reset


def reset_ended(env, ended: jax.Array, keys: jax.Array, current):
    """`current` (states, time steps) [env, ...], those that have ended [env] reset; keys [env].

    A few at a time, until all are: the cost follows the number of episodes that end, not the
    number of environments, also under vmap, where a condition would evaluate both its branches.
    """
    num_envs = ended.shape[0]
    group = max(1, num_envs // RESETS)
    order = jnp.argsort(~ended, stable=True)
    order = jnp.concatenate([order, jnp.zeros(group, order.dtype)])
    count = ended.sum()

    def unfinished(loop):
        return loop[1] < count

    def reset_group(loop):
        current, begin = loop
        indices = jax.lax.dynamic_slice(order, (begin,), (group,))
        fresh = jax.vmap(env.reset)(keys[indices])
        destinations = jnp.where(begin + jnp.arange(group) < count, indices, num_envs)
        put = lambda old, new: old.at[destinations].set(new, mode="drop")  # noqa: E731
        return jax.tree.map(put, current, fresh), begin + group

    return jax.lax.while_loop(unfinished, reset_group, (current, jnp.zeros((), count.dtype)))[0]


def choose(condition: jax.Array, new, old):
    """Per environment the leaves of `new` where condition [env], else those of `old`."""

    def leaf(new, old):
        mask = condition.reshape(condition.shape + (1,) * (new.ndim - condition.ndim))
        return jnp.where(mask, new, old)

    return jax.tree.map(leaf, new, old)
