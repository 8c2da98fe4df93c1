"""Where units stand and what they are when a battle of SMAX begins: upstream's draws.

Upstream's reset calls a generator up to 29 times, each time some two hundred instructions of
compiled code, also for what its map does not use. Here calls that are alike are turns of a loop.
They draw more than is used, so that more are alike: of a longer draw with the same key the
beginning is equal, as JAX's keys are split and used by default (`jax_threefry_partitionable`).
"""

import jax
import jax.numpy as jnp

SCATTER = 2.0  # units are at most that far from where their group stands, in each direction
WIDTH = 16  # see whole


def units(rules, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Positions [unit, 2], before units push each other apart, and types [unit]; allies first.

    rules: upstream's SMAX, whose reset draws the same from this key [].
    """
    key, *team_keys = jax.random.split(key, 4)[:3]
    if not (rules.smacv2_position_generation or rules.smacv2_unit_type_generation):
        return _opposite(rules, jnp.stack(team_keys)), rules.scenario
    key, place_key = jax.random.split(key)
    keys = _split(jnp.stack([key, place_key]))
    (_, type_key, *_), (which_key, around_key, mirror_key, _) = keys
    keys = _split(jnp.stack([type_key, around_key, mirror_key]))
    type_key, (inside_key, *around_keys), mirror_keys = keys[0, 1], keys[1, :3], keys[2, :2]
    around = _chain(jnp.stack(around_keys))  # [centre, group, distance, scatter; team inside]
    longest = max(rules.num_allies, rules.num_enemies)
    noise = _uniform(
        jnp.concatenate([around[jnp.array([0, 2, 3])].reshape(-1), mirror_keys, which_key[None]]),
        max(2 * longest, 4),
    )
    bits = rules.unit_type_bits
    gumbel = jax.lax.map(
        lambda key: jax.random.gumbel(key, (whole(max(4, bits) * longest),)),
        jnp.concatenate([around[1], type_key[None]]),
    )
    if rules.smacv2_position_generation:
        centre, distance, scatter = noise[:6].reshape(3, 2, -1)
        inside = [
            _around(rules, team, centre[team], gumbel[team], distance[team], scatter[team])
            for team in range(2)
        ]
        ally_inside = jax.random.randint(inside_key, (), 0, 2) == 1
        surrounded = jnp.where(ally_inside, inside[0], inside[1])
        mirrored = _mirrored(rules, noise[7], noise[6])
        positions = jnp.where(noise[8, 0] < 0.5, surrounded, mirrored)
    else:
        positions = _opposite(rules, jnp.stack(team_keys))
    if not rules.smacv2_unit_type_generation:
        return positions, rules.scenario
    types = _chosen(gumbel[2], rules.num_allies, bits)
    return positions, _both(types, rules.num_enemies).astype(rules.scenario.dtype)


def _split(keys):
    """Four keys of each: [key, 4]."""
    return jax.lax.map(lambda key: jax.random.split(key, 4), keys)


def _uniform(keys, count):
    """Uniform numbers [key, count] in [0, 1)."""
    return jax.lax.map(lambda key: jax.random.uniform(key, (whole(count),)), keys)


def whole(count: int) -> int:
    """Rounded up to whole vectors: LLVM writes short loops out, and those with a rest at length.

    Measured on two cores, the ticks of smax_smacv2_5_units with 16 draws instead of 10: half the
    compilation.
    """
    return -(-count // WIDTH) * WIDTH


def _chain(keys):
    """Four keys from each of `keys` [k], every one split off what the last has left: [4, k]."""

    def split(keys, _):
        pairs = jax.lax.map(jax.random.split, keys)
        return pairs[:, 0], pairs[:, 1]

    return jax.lax.scan(split, keys, length=4)[1]


def _between(uniform, low, high):
    return jnp.maximum(low, uniform * (high - low) + low)


def _points(uniform, count):
    return uniform[: 2 * count].reshape(count, 2)


def _scattered(uniform, count):
    return _between(_points(uniform, count), -SCATTER, SCATTER)


def _chosen(gumbel, count, options):
    """One of so many options, each as likely as another [count]."""
    logits = jnp.log(jnp.ones(options) / options)
    return jnp.argmax(gumbel[: count * options].reshape(count, options) + logits[None], axis=-1)


def _both(types, num_enemies):
    """The allies' types, and the same for the enemies; enemies beyond are of the first type."""
    more = max(num_enemies - len(types), 0)
    return jnp.concatenate([types, types[:num_enemies], jnp.zeros(more, types.dtype)])


def _opposite(rules, keys):
    """Each team in a quarter of the map; keys [team]."""
    sizes = rules.num_allies, rules.num_enemies
    uniform = _uniform(keys, 2 * max(sizes))
    middles = [(rules.map_width / 4 * side, rules.map_height / 2) for side in (1, 3)]
    return jnp.concatenate(
        [
            jnp.array([middle]) + _scattered(numbers, size)
            for middle, numbers, size in zip(middles, uniform, sizes, strict=True)
        ]
    )


def _around(rules, team, centre, gumbel, distance, scatter):
    """Team number `team` in the middle, the other in up to four groups on the diagonals."""
    inside, outside = (rules.num_allies, rules.num_enemies)[:: 1 if team == 0 else -1]
    width, height = rules.map_width, rules.map_height
    middle = jnp.array([[width / 2, height / 2]])
    corners = jnp.array([[0, 0], [0, height], [width, 0], [width, height]], jnp.float32)
    share = distance[:4, None]
    groups = share * middle + (1 - share) * corners
    places = [
        middle + _scattered(centre, inside),
        groups[_chosen(gumbel, outside, 4)] + _scattered(scatter, outside),
    ]
    return jnp.concatenate(places[:: 1 if team == 0 else -1])


def _mirrored(rules, allies, more):
    """Allies anywhere on their half, an enemy opposite each; enemies beyond anywhere on theirs."""
    n, m = rules.num_allies, rules.num_enemies
    size = jnp.array([[rules.map_width, rules.map_height]], jnp.float32)
    half = size / jnp.array([[2.0, 1.0]])
    allies = _between(_points(allies, n), 0.0, half)
    opposite = jnp.stack([rules.map_width - allies[:m, 0], allies[:m, 1]], axis=-1)
    low = jnp.array([[rules.map_width / 2, 0.0]])
    others = _between(_points(more, max(m - n, 0)), low, size)
    return jnp.concatenate([allies, opposite, others])
