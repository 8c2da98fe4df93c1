"""A map of the SMAC suite on SMAX as an `Environment`."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.envs.smac import enemy, scene, views
from lorasa_jax.envs.smac.maps import Map
from lorasa_jax.envs.smac.simulation import STOP, Battle, BattleState
from lorasa_jax.envs.smac.ticks import Orders
from lorasa_jax.envs.types import Discrete, TimeStep


class SmacState(NamedTuple):
    """The battle, and what its agents may do now: legal [agent, action]."""

    battle: BattleState
    legal: jax.Array


class Smac:
    """The allies of a battle against a team that attack-moves, one agent per unit.

    Actions: north, east, south, west, stop, then one per target: enemies in their order, and
    units of the own team for healers, themselves included but never legal. An illegal action is
    carried out as "stop"; a dead agent may only stop. info: won [] is True on the step that wins;
    illegal [] counts the illegal actions of agents that were alive.

    Raises:
      ConfigError: the map cannot be fought (`maps.check`).
    """

    truncates_early = False

    def __init__(self, battle: Map, max_steps: int | None = None):
        self.battle = Battle(battle, max_steps=max_steps)
        self.num_agents = battle.num_allies
        self.max_steps = self.battle.max_steps
        self.action_space = Discrete(self.battle.num_ally_actions)
        counter: Counter = Counter()
        names = []
        for unit in battle.units[: self.num_agents]:
            names.append(f"{unit.name}_{counter[unit.name]}")
            counter[unit.name] += 1
        self.agents = tuple(names)
        self.types = tuple(counter)
        self.type_of = tuple(self.types.index(unit.name) for unit in battle.units[: len(names)])
        timestep = jax.eval_shape(self.reset, jax.random.key(0))[1]
        self.observation_size = timestep.obs.shape[-1]
        self.state_size = timestep.state.shape[-1]

    def reset(self, key):
        return self._timestep(self.battle.begin(key), jnp.zeros(()), jnp.zeros((), int))

    def step(self, key, state, actions):
        before = state.battle
        known = (actions >= 0) & (actions < self.action_space.n)
        actions = jnp.where(known, actions, STOP)
        allowed = jnp.take_along_axis(state.legal, actions[:, None], axis=1)[:, 0] & known
        illegal = jnp.sum(~allowed & before.unit_alive[: self.num_agents])
        actions = jnp.where(allowed, actions, STOP)
        return self.command(key, state, self.battle.orders(actions), illegal)

    def command(self, key, state, orders: Orders, illegal: jax.Array | int = 0):
        """One step under orders to the agents, such as scripts give, instead of actions."""
        before = state.battle
        enemies = enemy.attack_move(self.battle, before)
        orders = Orders(*(jnp.concatenate(pair) for pair in zip(orders, enemies, strict=True)))
        after = self.battle.advance(key, before, orders)
        return self._timestep(after, self.battle.reward(before, after), jnp.asarray(illegal))

    def _timestep(self, battle, reward, illegal):
        legal = self.battle.legal(battle)
        allies, enemies = self.battle.fighters(battle)
        over = ~allies | ~enemies
        return SmacState(battle, legal), TimeStep(
            obs=views.observations(self.battle, battle, legal),
            state=views.critic_states(self.battle, battle, legal),
            reward=reward,
            terminated=over,
            truncated=(battle.step >= self.max_steps) & ~over,
            active=battle.unit_alive[: self.num_agents],
            legal=legal,
            info={
                "won": allies & ~enemies,
                "illegal": illegal.astype(jnp.float32),
            },
        )

    def film(
        self, states: SmacState, path: Path, *, rewards: np.ndarray | None = None, title: str = ""
    ) -> Path:
        """Writes states [time + 1, ...] and rewards [time] as .mp4 or .gif."""
        from lorasa_jax.envs.smac import pictures

        shown = scene.of_smac(self, states)
        return pictures.film(shown, Path(path), rewards=rewards, title=title)

    def replay(self, states: SmacState, rewards: np.ndarray, path: Path, *, title: str) -> Path:
        """Writes states [time + 1, ...] and rewards [time] as an interactive HTML page."""
        from lorasa_jax.envs.smac import replay

        return replay.write(scene.of_smac(self, states), rewards, Path(path), title=title)
