"""How a team fights that is only ordered to attack-move: StarCraft's units by themselves.

SMAC's maps give the enemy a single order, to attack-move to the allies' spawn point; the rest is
what every unit does under it, restated here. Units decide once per step. A fighter shoots on at
its target while that is in range, else takes the nearest enemy that it can hit and notices, and
walks up to it; else it walks on. It notices whom it could nearly shoot, but within 5 at least;
when its team has just been hit, whom it sees. A healer heals the worst wounded that it can reach,
else walks up to the nearest wounded, else follows the nearest fighter of its team.
"""

import jax.numpy as jnp
import numpy as np

from lorasa_jax.envs.smac.simulation import Battle, BattleState
from lorasa_jax.envs.smac.ticks import Orders
from lorasa_jax.envs.smac.units import ENERGY_TO_BEGIN, SHIELD_DELAY

LEAST_NOTICE, BEYOND_RANGE = 5.0, 0.5  # edge to edge
ALARM = 2.0  # seconds after a hit in which the team notices whomever it sees
FAR = 1e6


def attack_move(battle: Battle, state: BattleState, allies: bool = False) -> Orders:
    """Orders [unit of the team] of a team that attack-moves to the other team's spawn point."""
    team = slice(0, battle.num_allies) if allies else slice(battle.num_allies, battle.num_agents)
    roster, rules = battle.roster, battle.rules
    ids = np.arange(battle.num_agents)[team]
    positions = state.unit_positions[team]
    offset = state.unit_positions[None] - positions[:, None]
    distance = jnp.sqrt(jnp.sum(jnp.square(offset), axis=-1))
    edge = distance - roster.radius[team, None] - roster.radius[None]
    reach, may = roster.reach[team], roster.may_order[team] & state.unit_alive[None]

    weapon = reach - roster.radius[team, None] - roster.radius
    notice = np.maximum(weapon + BEYOND_RANGE, LEAST_NOTICE)
    alarmed = jnp.any(state.unit_calm[team] > SHIELD_DELAY - ALARM)
    noticed = edge < jnp.where(alarmed, roster.sight[team, None], notice)
    near = distance < reach
    kept = np.arange(battle.num_agents)[None] == state.unit_targets[team, None]
    score = jnp.where(may & noticed, distance, FAR)
    score = jnp.where(may & near & kept, -1.0, score)
    target = jnp.where(score.min(-1) < FAR, jnp.argmin(score, axis=-1), ids)

    goal = jnp.array([rules.spawns[1 if allies else 0]]) - positions
    if roster.healer[team].any():
        healer = roster.healer[team]
        healing, following = _heal(battle, state, team, distance, offset)
        target = jnp.where(healer, healing, target)
        goal = jnp.where(healer[:, None], following, goal)
    length = jnp.sqrt(jnp.sum(jnp.square(goal), axis=-1, keepdims=True))
    pace = 1.0 / jnp.maximum(length, roster.stride[team, None] * rules.loops)
    heading = jnp.where((target == ids)[:, None], goal * pace, 0.0)
    return Orders(heading, target.astype(jnp.int32))


def _heal(battle, state, team, distance, offset):
    """Whom healers of the team heal [unit], and where they would walk to otherwise [unit, 2]."""
    roster = battle.roster
    ids = np.arange(battle.num_agents)[team]
    hurt = state.unit_alive & (state.unit_health < roster.health)
    wounded = roster.may_order[team] & hurt[None]
    worst = (state.unit_health / roster.health - 1.0)[None]
    worst = jnp.where(distance < roster.reach[team], worst, 0.0)
    score = jnp.where(wounded, distance + FAR * worst, FAR)
    able = state.unit_healing[team] | (state.unit_energy[team] >= ENERGY_TO_BEGIN)
    target = jnp.where((score.min(-1) < FAR) & able, jnp.argmin(score, axis=-1), ids)
    friend = np.zeros(battle.num_agents, bool)
    friend[team] = True
    fighter = state.unit_alive & friend & ~roster.healer
    nearest = jnp.argmin(jnp.where(fighter[None], distance, FAR), axis=-1)
    following = jnp.take_along_axis(offset, nearest[:, None, None], axis=1)[:, 0]
    return target, following
