"""Upstream's SMAX with StarCraft's units: a subclass that replaces rules, and nothing of its API.

`Battle` commands both teams. JaxMARL's own methods work on it (`reset`, `step_env`, `get_obs`,
`get_avail_actions`, ...), so what is written for SMAX can play it, self-play included; its
observations there are upstream's, which show neither shields nor energy.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.struct import dataclass

from lorasa_jax.envs.smac import ticks, units
from lorasa_jax.envs.smac.maps import Map, check
from lorasa_jax.envs.smac.roster import Roster, roster
from lorasa_jax.envs.smac.rules import SUITE, Rules
from lorasa_jax.envs.smac.ticks import Bodies, Orders
from lorasa_jax.envs.stacked import upstream

_smax = upstream("jaxmarl.environments.smax.smax_env")

STOP, FIRST_ATTACK = 4, 5
# Headings of the actions north, east, south, west, stop.
HEADINGS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0], [0, 0]], np.float32)
# SMAC's reward: a point per point of damage, and these; all scaled so that winning pays SCALE.
DEATH_VALUE, WIN_VALUE, SCALE = 10.0, 200.0, 20.0


@dataclass
class BattleState(_smax.State):
    """Upstream's state, and per unit [unit]: shields; seconds until they return (`unit_calm`);
    energy; whether it is healing; its target (itself if none); whether it fired or healed in the
    last step; the least health and shields it ever had (`unit_lowest`), for the reward."""

    unit_shields: jax.Array
    unit_calm: jax.Array
    unit_energy: jax.Array
    unit_healing: jax.Array
    unit_targets: jax.Array
    unit_acted: jax.Array
    unit_lowest: jax.Array


class Battle(_smax.SMAX):
    """SMAX on map `battle` under `rules`; units are the map's, and so is the time limit.

    Raises:
      ConfigError: the map cannot be fought (`maps.check`).
    """

    def __init__(self, battle: Map, rules: Rules = SUITE, max_steps: int | None = None):
        check(battle)
        types = battle.types

        def each(name):
            return jnp.array([getattr(unit, name) for unit in types], jnp.float32)

        kinds = np.array([types.index(unit) for unit in battle.units], np.uint8)
        super().__init__(
            scenario=_smax.Scenario(kinds, battle.num_allies, battle.num_enemies, False, False),
            unit_type_names=[unit.name for unit in types],
            unit_type_shorthands=[unit.letter for unit in types],
            unit_type_velocities=each("speed"),
            unit_type_attacks=each("damage"),
            unit_type_attack_ranges=each("reach"),
            unit_type_sight_ranges=each("sight"),
            unit_type_radiuses=each("radius"),
            unit_type_health=each("health"),
            unit_type_weapon_cooldowns=each("cooldown"),
            world_steps_per_env_step=rules.loops,
            time_per_step=rules.dt,
            map_width=32,
            map_height=32,
            walls_cause_death=rules.walls_kill,
            max_steps=battle.limit if max_steps is None else max_steps,
        )
        self.battle, self.rules = battle, rules
        self.roster: Roster = roster(battle, rules)
        self.num_ally_actions, self.num_enemy_actions = (
            FIRST_ATTACK + width for width in self.roster.widths
        )
        self.action_spaces = {
            agent: self._get_individual_action_space(i) for i, agent in enumerate(self.agents)
        }
        self.state_size = self.num_agents * (len(self.own_features) + 2)
        enemy = ~self.roster.ally
        worth = float((self.roster.health + self.roster.shields)[enemy].sum())
        self.most_reward = worth + DEATH_VALUE * self.num_enemies + WIN_VALUE

    def begin(self, key) -> BattleState:
        """Both teams at their spawn points, scattered, with full health; weapons are ready."""
        n, count, rules = self.num_allies, self.num_agents, self.rules
        key, ally_key, enemy_key = jax.random.split(key, num=3)
        places = [
            jnp.array([spawn]) + jax.random.uniform(k, (m, 2), minval=-1, maxval=1) * rules.scatter
            for spawn, k, m in zip(rules.spawns, (ally_key, enemy_key), (n, count - n), strict=True)
        ]
        zeros, no = jnp.zeros(count), jnp.zeros(count, bool)

        def settle(place, _):
            x, y = place
            return ticks.push(self.roster, x, y, ~no), None

        x, y = jnp.concatenate(places).T
        x, y = jax.lax.scan(settle, (x, y), length=rules.settle)[0]
        healer = jnp.asarray(self.roster.healer)
        return BattleState(
            unit_positions=jnp.stack([x, y], axis=-1),
            unit_alive=~no,
            unit_teams=jnp.asarray(~self.roster.ally, jnp.float32),
            unit_health=jnp.asarray(self.roster.health),
            unit_types=jnp.asarray(self.roster.kind, jnp.uint8),
            unit_weapon_cooldowns=zeros,
            prev_movement_actions=jnp.zeros((count, 2)),
            prev_attack_actions=jnp.zeros(count, jnp.int32),
            step=jnp.zeros((), jnp.int32),
            done=jnp.zeros((), bool),
            unit_shields=jnp.asarray(self.roster.shields),
            unit_calm=zeros,
            unit_energy=jnp.where(healer, units.ENERGY_AT_START, 0.0),
            unit_healing=no,
            unit_targets=jnp.arange(count, dtype=jnp.int32),
            unit_acted=no,
            unit_lowest=jnp.asarray(self.roster.health + self.roster.shields),
        )

    def advance(self, key, state: BattleState, orders: Orders) -> BattleState:
        """One step of 8 ticks under orders to all units; ends nothing by itself."""
        rules, count = self.rules, self.num_agents
        bodies = Bodies(
            x=state.unit_positions[:, 0],
            y=state.unit_positions[:, 1],
            health=state.unit_health,
            shields=state.unit_shields,
            cooldown=state.unit_weapon_cooldowns,
            calm=state.unit_calm,
            energy=state.unit_energy,
            alive=state.unit_alive,
            healing=state.unit_healing,
            acted=state.unit_acted,
        )
        delays = rules.delay(key, rules.loops, count, rules.dt)
        after = ticks.fight(self.roster, rules, bodies, orders, delays)
        state = state.replace(
            unit_positions=jnp.stack([after.x, after.y], axis=-1),
            unit_alive=after.alive,
            unit_health=after.health,
            unit_shields=after.shields,
            unit_weapon_cooldowns=after.cooldown,
            unit_calm=after.calm,
            unit_energy=after.energy,
            unit_healing=after.healing,
            unit_acted=after.acted,
            unit_targets=orders.target,
            unit_lowest=jnp.minimum(state.unit_lowest, after.health + after.shields),
            prev_movement_actions=orders.heading,
            step=state.step + 1,
        )
        return state.replace(done=self.is_terminal(state))

    def orders(self, actions) -> Orders:
        """What actions [unit] command; units without an action may be left out at the end."""
        count = len(actions)
        slots = jnp.asarray(self.roster.slots[:count])
        slot = jnp.clip(actions - FIRST_ATTACK, 0, slots.shape[1] - 1)
        target = jnp.take_along_axis(slots, slot[:, None], axis=1)[:, 0]
        target = jnp.where(actions >= FIRST_ATTACK, target, jnp.arange(count))
        heading = jnp.asarray(HEADINGS)[jnp.clip(actions, 0, STOP)]
        return Orders(heading, target.astype(jnp.int32))

    def legal(self, state: BattleState, allies: bool = True):
        """[unit of the team, action] bool; the dead may stop, and do nothing else."""
        team, n = self._team(allies), self.num_allies
        positions, alive = state.unit_positions[team], state.unit_alive[team]
        offset = state.unit_positions[None] - positions[:, None]
        distance = jnp.sqrt(jnp.sum(jnp.square(offset), axis=-1))
        reach = (
            self.roster.reach[team] if self.rules.order_range is None else self.rules.order_range
        )
        may = (distance < reach) & self.roster.may_order[team]
        may &= alive[:, None] & state.unit_alive[None]
        width = self.roster.widths[0 if allies else 1]
        if self.roster.healer[team].any():
            attacks = jnp.take_along_axis(may, self.roster.slots[team, :width], axis=1)
        else:
            attacks = may[:, n:] if allies else may[:, :n][:, ::-1]
        low, high = jnp.array([[self.rules.low]]), jnp.array([[self.rules.high]])
        if self.rules.walls_kill:
            moves = jnp.ones((len(positions), STOP), bool)
        else:
            # SMAC looks half a move of 2 ahead.
            ahead = positions[:, None] + HEADINGS[None, :STOP]
            moves = ((ahead >= low) & (ahead <= high)).all(-1)
        stop = jnp.ones((len(positions), 1), bool)
        return jnp.concatenate([moves & alive[:, None], stop, attacks], axis=-1)

    def fighters(self, state: BattleState):
        """Whether the allies and the enemies have anyone left who can fight: ([], [])."""
        able = state.unit_alive & ~self.roster.healer
        return able[: self.num_allies].any(), able[self.num_allies :].any()

    def won(self, state: BattleState):
        """[]: only the allies have fighters left."""
        allies, enemies = self.fighters(state)
        return allies & ~enemies

    def is_terminal(self, state: BattleState):
        """A team is without fighters, or the time is up; a draw is no victory."""
        allies, enemies = self.fighters(state)
        return ~allies | ~enemies | (state.step >= self.max_steps)

    def reward(self, before: BattleState, after: BattleState):
        """The allies' reward: SMAC's, of which a won battle pays exactly 20.

        A point for each point of enemy health and shields below its lowest so far, 10 for each
        death, 200 for the victory. SMAC pays for any change, regained health included.
        """
        enemy = ~self.roster.ally
        damage = jnp.sum(jnp.where(enemy, before.unit_lowest - after.unit_lowest, 0.0))
        deaths = jnp.sum(enemy & before.unit_alive & ~after.unit_alive).astype(float)
        remains = jnp.sum(jnp.where(enemy, after.unit_lowest, 0.0))
        deaths_to_come = jnp.sum(enemy & after.unit_alive).astype(float)
        won = self.won(after) & ~self.won(before)
        # Enemy healers that outlive their team count as beaten with it.
        victory = WIN_VALUE + remains + DEATH_VALUE * deaths_to_come
        points = damage + DEATH_VALUE * deaths + jnp.where(won, victory, 0.0)
        return points * (SCALE / self.most_reward)

    def _team(self, allies: bool) -> slice:
        return slice(0, self.num_allies) if allies else slice(self.num_allies, self.num_agents)

    # JaxMARL's API.

    def reset(self, key):
        state = self.begin(key)
        return self.get_obs(state) | {"world_state": self.get_world_state(state)}, state

    def step_env_no_decode(self, key, state, actions, get_state_sequence=False):
        if get_state_sequence:
            raise NotImplementedError("a step's ticks are not kept; film() draws whole steps.")
        heading, attacks = actions
        target = self.orders(jnp.maximum(attacks, STOP)).target
        after = self.advance(key, state, Orders(heading, target))
        after = after.replace(prev_attack_actions=attacks)
        obs = self.get_obs(after) | {"world_state": self.get_world_state(after)}
        dones = {agent: ~after.unit_alive[i] for agent, i in self.agent_ids.items()}
        reward = self.reward(state, after)
        rewards = {
            agent: reward if i < self.num_allies else -reward for agent, i in self.agent_ids.items()
        }
        return obs, after, rewards, dones | {"__all__": after.done}, {}

    def compute_reward(self, state, health_before, health_after):
        raise NotImplementedError("the suite's reward needs whole states: reward(before, after).")

    def get_avail_actions(self, state):
        masks = [*self.legal(state), *self.legal(state, allies=False)]
        return {
            agent: mask.astype(jnp.uint8) for agent, mask in zip(self.agents, masks, strict=True)
        }

    def get_world_state(self, state):
        """[feature]: upstream's features, within [-1, 1]; zeros for the dead."""
        place = state.unit_positions / jnp.array([self.map_width, self.map_height])
        each = jnp.concatenate(
            [
                (state.unit_health / self.roster.health)[:, None],
                place,
                jnp.clip(state.unit_weapon_cooldowns / self.roster.cooldown, 0.0, 1.0)[:, None],
                self.roster.bits,
                state.unit_teams[:, None],
                (state.unit_types / max(self.unit_type_bits - 1, 1))[:, None],
            ],
            axis=-1,
        )
        return jnp.where(state.unit_alive[:, None], each, 0.0).reshape(-1)
