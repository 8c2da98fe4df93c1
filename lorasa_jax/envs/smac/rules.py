"""Rules in which the suite differs from upstream SMAX, as values; both sets of them.

`SUITE` is what the maps are played with. `UPSTREAM`, with the unit table `units.SMAX`, plays
upstream's game, so that tests can hold one against the other.

| rule | upstream | the suite (SMAC's, unless said) |
|---|---|---|
| clock | mixed, 8 ticks of 1/16 s | "Normal" seconds, 8 ticks of one game loop (1/16 s) a step |
| range | centre to centre | edge to edge |
| attack | in range or nothing | walks into range, then fires; legal within 6 |
| cooldown | falls without end; the tick that fires is not counted | stops at 0; every tick counts |
| a weapon's delay | drawn every tick | drawn every step: no unit fires twice within one |
| damage | one number per type | hits, bonus, armour, shields that return, planes, beams |
| observations | own place; others' moves, targets, cooldowns | SMAC's; own place and weapon |
| sight | 8 to 10, by type | 9 for every agent |
| illegal actions | fire if the target comes into range | stop (SMAC fails), and are counted |
| pushing | all units | units of one layer; separation radii |
| healing | none | health for energy, through the attack head of healers |
| walls | kill | stop; y from 8 to 24 |
| spawn | (8, 16), (24, 16) | (9, 16), (23, 16); scattered by up to 2, as upstream |
| time limit | 101 steps, an ending like any other | the map's, truncated exactly then |
| defeat | a team is dead | a team has no fighter left |
| reward | share of enemy health that changed, 1 for winning | SMAC's, 20 at most; regained health |
| | | pays neither when it comes nor when it goes |
| critic's state | one, unbounded | one per agent, within [-1, 1] |
| enemy | four directions, towards a random visible unit | attack-moves to the allies' spawn point |
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax


def delay_per_step(key, loops: int, units: int, dt: float):
    """[loops, unit] s to add to cooldowns, within [-dt, 2 dt]; one draw per unit and step."""
    return jax.random.uniform(key, (1, units), minval=-dt, maxval=2 * dt).repeat(loops, 0)


def delay_of_upstream(key, loops: int, units: int, dt: float):
    """[loops, unit] s: the numbers that upstream's step draws from this key."""

    def split(key, _):
        return tuple(jax.random.split(key))

    def draw(key):
        keys = jax.random.split(key, units)
        return jax.vmap(lambda key: jax.random.uniform(key, minval=-dt, maxval=2 * dt))(keys)

    return jax.vmap(draw)(jax.lax.scan(split, key, length=loops)[1])


@dataclass(frozen=True)
class Rules:
    """The table above. Places are (x, y), lengths map units.

    between_edges: ranges are. walks: an attack out of range walks to its target. order_range:
    how far a target may be chosen (between centres), None for the weapon's own range.
    counts_firing_tick: how many ticks of a cooldown have passed when the tick that fired ends.
    settle: rounds of pushing after the spawn.
    """

    between_edges: bool
    walks: bool
    order_range: float | None
    counts_firing_tick: int
    spawns: tuple[tuple[float, float], tuple[float, float]]
    low: tuple[float, float]
    high: tuple[float, float]
    walls_kill: bool
    settle: int
    delay: Callable
    scatter: float = 2.0
    dt: float = 1 / 16
    loops: int = 8


SUITE = Rules(
    between_edges=True,
    walks=True,
    order_range=6.0,
    counts_firing_tick=1,
    spawns=((9.0, 16.0), (23.0, 16.0)),
    low=(0.0, 8.0),
    high=(32.0, 24.0),
    walls_kill=False,
    settle=8,
    delay=delay_per_step,
)
UPSTREAM = Rules(
    between_edges=False,
    walks=False,
    order_range=None,
    counts_firing_tick=0,
    spawns=((8.0, 16.0), (24.0, 16.0)),
    low=(0.0, 0.0),
    high=(32.0, 32.0),
    walls_kill=True,
    settle=1,
    delay=delay_of_upstream,
)
