"""What agents and their critics are shown: numbers within [-1, 1].

An observation is what SMAC shows within sight, and the agent's own place and weapon; a critic's
state is the whole battle seen from its agent.
"""

import jax.numpy as jnp
import numpy as np

from lorasa_jax.envs.smac.simulation import STOP, Battle, BattleState
from lorasa_jax.envs.smac.units import ENERGY_FULL, SHIELD_DELAY


def observations(battle: Battle, state: BattleState, legal):
    """[agent, feature]; nothing of units out of sight or dead, and nothing at all for the dead.

    Of each enemy: whether it may be attacked now, distance and offset over the sight range,
    health, shields, type. Of each other ally: whether it is seen, and the same. Of oneself:
    directions open, health, shields, weapon (`_charge`), place, type. Shields and types only on
    maps with shields and with more than one type.
    """
    n, roster = battle.num_allies, battle.roster
    offset, distance = _offsets(battle, state)
    sight = roster.sight[:n, None]
    visible = (distance < sight) & state.unit_alive[:n, None] & state.unit_alive[None]
    looks = _looks(battle, state)

    relative = jnp.concatenate([distance[..., None], offset], axis=-1) / sight[..., None]
    looks_to_all = jnp.broadcast_to(looks, (n, *looks.shape))
    flag = visible.at[:, n:].set(_attackable(battle, legal))
    each = _features(flag[..., None], relative, looks_to_all)
    each = jnp.where(visible[..., None], each, 0.0)
    before_self = (np.arange(n - 1) < np.arange(n)[:, None])[..., None]
    others = jnp.where(before_self, each[:, : n - 1], each[:, 1:n])
    self_features = _features(
        legal[:, :STOP], _place(battle, state)[:n], _charge(battle, state)[:n, None], looks[:n]
    )
    self_features = jnp.where(state.unit_alive[:n, None], self_features, 0.0)
    return jnp.concatenate(
        [each[:, n:].reshape(n, -1), others.reshape(n, -1), self_features], axis=-1
    )


def critic_states(battle: Battle, state: BattleState, legal):
    """[agent, feature].

    The same for all: per unit place, weapon, health, shields, type, least health and shields so
    far, how lately it was hit; the time left. Per agent and unit: offset, whether in sight,
    whether it aims at the agent; the agent's legal actions and its own features once more.
    """
    n, roster = battle.num_allies, battle.roster
    offset, distance = _offsets(battle, state)
    alive = state.unit_alive
    lowest = state.unit_lowest / (roster.health + roster.shields)
    features = [
        alive[:, None], _place(battle, state), _charge(battle, state)[:, None],
        lowest[:, None], state.unit_calm[:, None] / SHIELD_DELAY, _looks(battle, state),
    ]  # fmt: skip
    each = jnp.where(alive[:, None], _features(*features), 0.0)
    shared = jnp.concatenate([each.reshape(-1), 1.0 - state.step[None] / battle.max_steps])
    both = alive[:n, None] & alive[None]
    aimed_at = state.unit_targets[None] == np.arange(n)[:, None]
    # Pushing may move a unit a little beyond the edge of the map.
    relative_offset = jnp.clip(offset / battle.map_width, -1.0, 1.0)
    in_sight = distance < roster.sight[:n, None]
    relations = _features(relative_offset, in_sight[..., None], aimed_at[..., None])
    relations = jnp.where(both[..., None], relations, 0.0)
    shared = jnp.broadcast_to(shared, (n, *shared.shape))
    return _features(each[:n], legal, relations.reshape(n, -1), shared)


def _features(*parts):
    """Parts [..., feature] side by side; of what is true or false, 1 and 0."""
    return jnp.concatenate([part.astype(float) for part in parts], axis=-1)


def _offsets(battle, state):
    """From each agent to each unit: offset [agent, unit, 2] and distance [agent, unit]."""
    offset = state.unit_positions[None] - state.unit_positions[: battle.num_allies, None]
    return offset, jnp.sqrt(jnp.sum(jnp.square(offset), axis=-1))


def _attackable(battle, legal):
    """[agent, enemy] bool; healers attack nobody."""
    n = battle.num_allies
    slots = legal[:, STOP + 1 : STOP + 1 + battle.num_enemies]
    return slots & ~battle.roster.healer[:n, None]


def _looks(battle, state):
    """[unit, feature]: health; shields where the map has any; type where it has several."""
    roster = battle.roster
    parts = [(state.unit_health / roster.health)[:, None]]
    if roster.shields.any():
        parts.append((state.unit_shields / np.maximum(roster.shields, 1.0))[:, None])
    if roster.bits.shape[1] > 1:
        parts.append(jnp.asarray(roster.bits))
    return jnp.concatenate(parts, axis=-1)


def _charge(battle, state):
    """[unit]: the share of a weapon's cooldown that is left; of a healer, of its energy."""
    roster = battle.roster
    cooldown = jnp.clip(state.unit_weapon_cooldowns / roster.cooldown, 0.0, 1.0)
    return jnp.where(roster.healer, state.unit_energy / ENERGY_FULL, cooldown)


def _place(battle, state):
    """[unit, 2]: position from the middle of the map, over half of its size."""
    low, high = np.array([battle.rules.low]), np.array([battle.rules.high])
    return jnp.clip((state.unit_positions - (low + high) / 2) / ((high - low) / 2), -1.0, 1.0)
