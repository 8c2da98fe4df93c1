"""What pictures and pages of a battle show, whichever environment it was fought in."""

from typing import NamedTuple

import jax
import numpy as np

from lorasa_jax.envs.smac.units import ENERGY_FULL, SMAX, Unit


class Scene(NamedTuple):
    """A recorded battle; units are counted allies first.

    agents name the allies; low and high: corners (x, y) of the map; seconds that a step lasts.
    step [time]; places [time, unit, 2]; the others [time, unit]: alive; health, shields and energy
    as shares, NaN where a unit has none; acts: whom a unit shot at or healed in the step before,
    -1 for nobody.
    """

    name: str
    units: tuple[Unit, ...]
    agents: tuple[str, ...]
    low: tuple[float, float]
    high: tuple[float, float]
    seconds: float
    step: np.ndarray
    places: np.ndarray
    alive: np.ndarray
    health: np.ndarray
    shields: np.ndarray
    energy: np.ndarray
    acts: np.ndarray

    @property
    def num_allies(self) -> int:
        return len(self.agents)


def of_smac(env, states) -> Scene:
    """Of `Smac`, from its states [time, ...]."""
    battle, roster, rules = env.battle, env.battle.roster, env.battle.rules
    battles = jax.tree.map(np.asarray, states.battle)
    return Scene(
        name=battle.battle.name,
        units=battle.battle.units,
        agents=env.agents,
        low=rules.low,
        high=rules.high,
        seconds=rules.dt * rules.loops,
        step=battles.step,
        places=battles.unit_positions,
        alive=battles.unit_alive,
        health=battles.unit_health / roster.health,
        shields=battles.unit_shields / np.where(roster.shields > 0, roster.shields, np.nan),
        energy=np.where(roster.healer, battles.unit_energy / ENERGY_FULL, np.nan),
        acts=np.where(battles.unit_acted, battles.unit_targets, -1),
    )


def of_smax(env, states) -> Scene:
    """Of `Smax`, from its states [time, ...]."""
    rules, battles = env.rules, jax.tree.map(np.asarray, states.upstream.state)
    units = tuple(list(SMAX.values())[kind] for kind in battles.unit_types[0])
    seconds = rules.time_per_step * rules.world_steps_per_env_step
    # Weapons cool by all of a step unless they fire in it.
    cooldown = battles.unit_weapon_cooldowns
    fired = np.diff(cooldown, axis=0, prepend=cooldown[:1] + seconds) > -seconds / 2
    none = np.full_like(battles.unit_health, np.nan)
    return Scene(
        name=env.name,
        units=units,
        agents=env.agents,
        low=(0.0, 0.0),
        high=(float(rules.map_width), float(rules.map_height)),
        seconds=seconds,
        step=battles.step,
        places=battles.unit_positions,
        alive=battles.unit_alive,
        health=battles.unit_health / np.array([unit.health for unit in units], np.float32),
        shields=none,
        energy=none,
        acts=np.where(fired, np.asarray(env.targets(battles.prev_attack_actions)), -1),
    )
