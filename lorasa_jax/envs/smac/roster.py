"""What a battle's units are and can do to each other: constants, worked out once per map."""

from typing import NamedTuple

import numpy as np

from lorasa_jax.envs.smac.maps import Map
from lorasa_jax.envs.smac.rules import Rules
from lorasa_jax.envs.smac.units import Unit

LEAST_DAMAGE = 0.5  # that armour leaves of a hit


class Roster(NamedTuple):
    """Allies first. Vectors [unit]; matrices [unit, unit] are row acting on column.

    kind [unit]: index among the map's types; bits [unit, type] the same as one-hot.
    raw, net: damage of a volley to shields and to health, 0 where the weapon cannot hit.
    reach: distance between centres within which a weapon fires or a healer heals.
    may_order: whom an attack action may name: enemies one can hit, for healers those one can heal.
    push_distance: kept by pushing, 0 between layers. slots [unit, slot]: the unit that attack
    slot k names, or the unit itself where there is none; widths: slots of (allies, enemies).
    """

    kind: np.ndarray
    bits: np.ndarray
    ally: np.ndarray
    health: np.ndarray
    shields: np.ndarray
    stride: np.ndarray
    cooldown: np.ndarray
    sight: np.ndarray
    radius: np.ndarray
    heal: np.ndarray
    healer: np.ndarray
    raw: np.ndarray
    net: np.ndarray
    reach: np.ndarray
    may_order: np.ndarray
    push_distance: np.ndarray
    slots: np.ndarray
    widths: tuple[int, int]
    healers: tuple[int, ...]
    beams: tuple[tuple[int, float, float], ...]


def volley(attacker: Unit, target: Unit) -> tuple[float, float]:
    """Damage of one volley to the target's shields and to its health; 0 if it cannot be hit."""
    if not set(attacker.targets) & set(target.planes) or not attacker.damage:
        return 0.0, 0.0
    hit = attacker.damage + (attacker.bonus if attacker.against in target.tags else 0.0)
    return attacker.hits * hit, attacker.hits * max(hit - target.armor, LEAST_DAMAGE)


def roster(battle: Map, rules: Rules) -> Roster:
    units, types = battle.units, battle.types
    allies, count = battle.num_allies, len(units)
    kind = np.array([types.index(unit) for unit in units])
    ally = np.arange(count) < allies

    def each(name):
        return np.array([getattr(unit, name) for unit in units], np.float32)

    def pairs(function):
        return np.array([[function(i, j) for j in units] for i in units])

    hostile = ally[:, None] != ally
    damage = pairs(volley).astype(np.float32) * hostile[..., None]
    another = ~np.eye(count, dtype=bool)
    heals = pairs(lambda i, j: i.healer and i.heals in j.tags) & ~hostile & another
    radius, separation = each("radius"), each("radius")
    for i, unit in enumerate(units):
        separation[i] = unit.radius if unit.separation is None else unit.separation
    reach = np.broadcast_to(each("reach")[:, None], (count, count)).copy()
    if rules.between_edges:
        reach += radius[:, None] + radius
    same_layer = pairs(lambda i, j: i.layer == j.layer) & another
    healer = np.array([unit.healer for unit in units])
    slots, widths = _slots(ally, healer)
    return Roster(
        kind=kind,
        bits=np.eye(len(types), dtype=np.float32)[kind],
        ally=ally,
        health=each("health"),
        shields=each("shields"),
        stride=each("speed") * np.float32(rules.dt),
        cooldown=each("cooldown"),
        sight=each("sight"),
        radius=radius,
        heal=each("heal"),
        healer=healer,
        raw=damage[..., 0],
        net=damage[..., 1],
        reach=reach,
        may_order=(damage[..., 0] > 0) | heals,
        push_distance=np.where(same_layer, separation[:, None] + separation, 0.0).astype(
            np.float32
        ),
        slots=slots,
        widths=widths,
        healers=tuple(np.flatnonzero(healer).tolist()),
        beams=tuple((i, *unit.beam) for i, unit in enumerate(units) if unit.beam),
    )


def _slots(ally, healer):
    """Allies count each team from its first unit on, enemies from its last back, as upstream."""
    count = len(ally)
    teams = (np.flatnonzero(ally), np.flatnonzero(~ally))

    def width(team, other):
        return max(len(other), len(team) if healer[team].any() else 0)

    widths = width(*teams), width(*teams[::-1])
    slots = np.tile(np.arange(count)[:, None], (1, max(widths)))
    for i in range(count):
        team, other = teams if ally[i] else teams[::-1]
        targets = team if healer[i] else other
        slots[i, : len(targets)] = targets if ally[i] else targets[::-1]
    return slots, widths
