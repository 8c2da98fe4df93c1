"""Resetting those of many environments that have ended."""

import jax
import jax.numpy as jnp

RESETS = 8  # groups in which all environments would be reset


def reset_ended(env, ended: jax.Array, keys: jax.Array, now):
    """`now` (states, time steps) [env, ...] with those reset that have ended [env]; keys [env].

    A few at a time, until all are: resets cost as much as the episodes that end, not as many as
    there are environments, also under vmap, where a condition would evaluate both its branches.
    """
    num_envs = ended.shape[0]
    group = max(1, num_envs // RESETS)
    order = jnp.argsort(~ended, stable=True)
    order = jnp.concatenate([order, jnp.zeros(group, order.dtype)])
    count = ended.sum()

    def more(loop):
        return loop[1] < count

    def some(loop):
        now, begin = loop
        who = jax.lax.dynamic_slice(order, (begin,), (group,))
        fresh = jax.vmap(env.reset)(keys[who])
        into = jnp.where(begin + jnp.arange(group) < count, who, num_envs)
        put = lambda old, new: old.at[into].set(new, mode="drop")  # noqa: E731
        return jax.tree.map(put, now, fresh), begin + group

    return jax.lax.while_loop(more, some, (now, jnp.zeros((), count.dtype)))[0]


def choose(condition: jax.Array, new, old):
    """Per environment the leaves of `new` where condition [env], else those of `old`."""

    def leaf(new, old):
        mask = condition.reshape(condition.shape + (1,) * (new.ndim - condition.ndim))
        return jnp.where(mask, new, old)

    return jax.tree.map(leaf, new, old)
