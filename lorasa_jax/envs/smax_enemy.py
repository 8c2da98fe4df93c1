"""Upstream's heuristic enemy of SMAX: it fires at whom it can reach, else follows whom it sees."""

import jax
import jax.numpy as jnp

from lorasa_jax.envs.smax_start import whole


def act(rules, key, memory, *, place, offset, sees, reach):
    """Actions [enemy] and the memory [enemy] that upstream's policy gives for these.

    memory: upstream's, where each would go without seeing anybody and which ally it fired at last.
    place [enemy, 2]; offset [enemy, ally, 2]: to the allies in the order in which
    enemies count them, zero where it does not see them; sees [enemy, ally]; reach [enemy]: how far
    it fires.
    """
    enemies = len(sees)
    # The first of the two keys into which each enemy's is split: the other one is for enemies that
    # choose a target at random, which these do not.
    keys = jax.random.split(key, whole(enemies))
    keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(keys)
    drawn = jax.vmap(jax.random.uniform)(keys)[:enemies]

    distance = jnp.linalg.norm(offset, axis=-1)
    reachable = sees & (distance < reach[:, None])
    size = jnp.array([rules.map_width, rules.map_height], jnp.float32)
    closest = jnp.argmin(jnp.where(reachable, distance, jnp.linalg.norm(size)), axis=-1)
    last = memory.last_attacked_enemy
    keeps = (last != -1) & _at(reachable, last)
    target = jnp.where(keeps, last, closest)
    fires = reachable.any(-1)

    shares = jnp.cumsum(sees / jnp.sum(sees, axis=-1, keepdims=True), axis=-1)
    bound = shares[:, -1:] * (1 - drawn[:, None])
    followed = jnp.sum(shares < bound, axis=-1)
    new = (memory.default_target == 0).all(-1) & (last == -1)
    middle = size[None] / 2
    across = jnp.where(new[:, None], middle - (place - middle), memory.default_target)
    goal = jnp.where(sees.any(-1)[:, None], _at(offset + place[:, None], followed), across)
    way = goal - place
    stride = jnp.argmax(jnp.concatenate([way[:, ::-1], -way[:, ::-1]], axis=-1), axis=-1)
    actions = jnp.where(fires, target + rules.num_movement_actions, stride)
    memory = memory.replace(default_target=across, last_attacked_enemy=jnp.where(fires, target, -1))
    return actions, memory


def _at(x, index):
    """x [enemy, ally, ...] at index [enemy]."""
    index = index.reshape(-1, *[1] * (x.ndim - 1))
    return jnp.take_along_axis(x, index, axis=1)[:, 0]
