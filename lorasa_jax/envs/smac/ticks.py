"""What happens within one step: ticks of moving, firing, healing and pushing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.envs.smac import units as facts
from lorasa_jax.envs.smac.roster import Roster
from lorasa_jax.envs.smac.rules import Rules


class Bodies(NamedTuple):
    """What changes within a step, [unit] each; x and y are the position.

    calm: seconds until shields return, counted down from the last damage. healing: it healed in
    the last tick. acted: it fired or healed since the step began.
    """

    x: jax.Array
    y: jax.Array
    health: jax.Array
    shields: jax.Array
    cooldown: jax.Array
    calm: jax.Array
    energy: jax.Array
    alive: jax.Array
    healing: jax.Array
    acted: jax.Array


class Orders(NamedTuple):
    """heading [unit, 2]: direction to walk in, of length 1 or less. target [unit]: whom to attack
    or heal, oneself for nobody."""

    heading: jax.Array
    target: jax.Array


class _Aims(NamedTuple):
    """Orders as numbers: target, raw, net, reach, walk_x, walk_y [unit]; aim [unit, unit] is true
    where row aims at column."""

    target: jax.Array
    raw: jax.Array
    net: jax.Array
    reach: jax.Array
    walk_x: jax.Array
    walk_y: jax.Array
    aim: jax.Array


def fight(roster: Roster, rules: Rules, bodies: Bodies, orders: Orders, delays) -> Bodies:
    """All ticks of one step; delays [tick, unit] s are added to the cooldowns of who fires.

    A target that the unit can neither damage nor heal is no target.
    """
    aim = (jnp.arange(len(roster.kind))[None] == orders.target[:, None]) & roster.may_order

    def of_target(matrix):
        return jnp.sum(jnp.where(aim, matrix, 0.0), axis=1)

    aims = _Aims(
        target=orders.target,
        raw=of_target(roster.raw),
        net=of_target(roster.net),
        reach=of_target(roster.reach),
        walk_x=orders.heading[:, 0] * roster.stride,
        walk_y=orders.heading[:, 1] * roster.stride,
        aim=aim,
    )

    def tick(bodies, delay):
        return _tick(roster, rules, aims, bodies, delay), None

    bodies = bodies._replace(acted=jnp.zeros_like(bodies.acted))
    return jax.lax.scan(tick, bodies, delays)[0]


def _tick(roster, rules, aims, before: Bodies, delay) -> Bodies:
    """Everyone acts at once on what was true before; who dies still fires."""
    b = before
    to_x, to_y = b.x[aims.target] - b.x, b.y[aims.target] - b.y
    distance = jnp.sqrt(to_x * to_x + to_y * to_y)
    able = (aims.reach > 0.0) & b.alive & b.alive[aims.target]
    near = able & (distance < aims.reach)
    fires = near & (b.cooldown <= 0.0) & ~roster.healer

    x, y = b.x + aims.walk_x, b.y + aims.walk_y
    if rules.walks:
        pace = jnp.minimum(roster.stride / (distance + 1e-6), 1.0)
        pace = jnp.where(able & ~near, pace, 0.0)
        x, y = x + pace * to_x, y + pace * to_y
    x = jnp.where(b.alive, jnp.clip(x, rules.low[0], rules.high[0]), b.x)
    y = jnp.where(b.alive, jnp.clip(y, rules.low[1], rules.high[1]), b.y)

    b = _damage(roster, rules, aims, b, fires, to_x, to_y, distance)
    if rules.walls_kill:
        outside = (x <= rules.low[0]) | (x >= rules.high[0])
        outside |= (y <= rules.low[1]) | (y >= rules.high[1])
        b = b._replace(health=jnp.where(outside, 0.0, b.health))
    b = b._replace(alive=b.health > 0.0, acted=b.acted | fires)
    if roster.healers:
        b = _heal(roster, rules, aims, b, near)
    full = roster.cooldown + delay - rules.counts_firing_tick * rules.dt
    cooldown = jnp.where(fires, full, jnp.maximum(b.cooldown - rules.dt, 0.0))
    x, y = push(roster, x, y, b.alive)
    return b._replace(x=x, y=y, cooldown=cooldown)


def _damage(roster, rules, aims, b, fires, to_x, to_y, distance):
    """Volleys hit shields first; of one that breaks them, armour counts on the share that is left.

    A beam also hits every enemy of its shooter on the line through the target, across the shot.
    """
    struck = aims.aim & fires[:, None]
    net = jnp.sum(jnp.where(struck, aims.net[:, None], 0.0), axis=0)
    raw = jnp.sum(jnp.where(struck, aims.raw[:, None], 0.0), axis=0)
    for shooter, half_length, width in roster.beams:
        target = aims.target[shooter]
        ux, uy = to_x[shooter], to_y[shooter]
        scale = 1.0 / (distance[shooter] + 1e-6)
        dx, dy = b.x - b.x[target], b.y - b.y[target]
        across, along = (dx * ux + dy * uy) * scale, (dy * ux - dx * uy) * scale
        beyond = jnp.maximum(jnp.abs(along) - half_length, 0.0)
        line = jnp.square(across) + jnp.square(beyond) <= jnp.square(width + roster.radius)
        line &= b.alive & ~aims.aim[shooter] & fires[shooter]
        net += jnp.where(line, roster.net[shooter], 0.0)
        raw += jnp.where(line, roster.raw[shooter], 0.0)
    hurt = raw > 0.0
    calm = jnp.where(hurt, facts.SHIELD_DELAY, jnp.maximum(b.calm - rules.dt, 0.0))
    if not roster.shields.any():
        return b._replace(health=jnp.maximum(b.health - net, 0.0), calm=calm)
    through = jnp.maximum(raw - b.shields, 0.0) / jnp.maximum(raw, 1e-6)
    returning = b.alive & (b.calm <= 0.0) & ~hurt
    regained = jnp.where(returning, facts.SHIELD_RATE * rules.dt, 0.0)
    return b._replace(
        health=jnp.maximum(b.health - net * through, 0.0),
        shields=jnp.minimum(jnp.maximum(b.shields - raw, 0.0) + regained, roster.shields),
        calm=calm,
    )


def _heal(roster, rules, aims, b, near):
    """Survivors are healed, each by one healer at a time; energy is drained and comes back."""
    health, energy, healing = b.health, b.energy, b.healing
    taken = jnp.zeros_like(b.alive)
    for healer in roster.healers:
        rate = roster.heal[healer] * rules.dt
        patient = aims.aim[healer] & b.alive & ~taken & near[healer] & b.alive[healer]
        # What it takes to go on, and what it takes to begin.
        least = jnp.where(healing[healer], rate / facts.HEALTH_PER_ENERGY, facts.ENERGY_TO_BEGIN)
        patient &= (health < roster.health) & (energy[healer] >= least)
        healed = jnp.where(patient, jnp.minimum(rate, roster.health - health), 0.0)
        health, taken = health + healed, taken | patient
        spent = jnp.sum(healed) / facts.HEALTH_PER_ENERGY
        energy = energy.at[healer].add(-spent)
        healing = healing.at[healer].set(jnp.any(patient))
    regained = jnp.where(roster.healer & b.alive, facts.ENERGY_RATE * rules.dt, 0.0)
    energy = jnp.minimum(energy + regained, facts.ENERGY_FULL)
    return b._replace(health=health, energy=energy, healing=healing, acted=b.acted | healing)


def push(roster, x, y, alive):
    """Living units of one layer that overlap move half the overlap apart, all at once."""
    dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
    distance = jnp.sqrt(dx * dx + dy * dy) + jnp.eye(len(x)) + 1e-6
    overlap = jnp.maximum(roster.push_distance / distance - 1.0, 0.0)
    overlap = jnp.where(alive[:, None], overlap, 0.0)
    half = jnp.where(alive, 0.5, 0.0)
    return x + half * jnp.sum(dx * overlap, axis=0), y + half * jnp.sum(dy * overlap, axis=0)
