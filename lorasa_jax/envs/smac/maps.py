"""SMAC's maps as data: who fights whom, for how long, and what a scenario must fulfil."""

from dataclasses import dataclass, field

from lorasa_jax.envs.smac.units import STARCRAFT, Unit
from lorasa_jax.errors import ConfigError


@dataclass(frozen=True)
class Map:
    """A battle of two teams, {unit: count} in the agents' order, of at most `limit` steps."""

    name: str
    allies: dict[str, int]
    enemies: dict[str, int]
    limit: int
    table: dict[str, Unit] = field(default_factory=lambda: STARCRAFT)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every unit, allies first."""
        teams = (self.allies, self.enemies)
        return tuple(
            self.table[name] for team in teams for name, count in team.items() for _ in range(count)
        )

    @property
    def types(self) -> tuple[Unit, ...]:
        """The kinds of unit that take part, in the table's order."""
        return tuple(self.table[name] for name in self.table if name in self.allies | self.enemies)

    @property
    def num_allies(self) -> int:
        return sum(self.allies.values())

    @property
    def num_enemies(self) -> int:
        return sum(self.enemies.values())


_3S5Z = {"stalker": 3, "zealot": 5}
_MMM = {"marauder": 2, "marine": 7, "medivac": 1}

MAPS = {
    battle.name: battle
    for battle in (
        Map("2s3z", {"stalker": 2, "zealot": 3}, {"stalker": 2, "zealot": 3}, 120),
        Map("3s5z", _3S5Z, _3S5Z, 150),
        Map("1c3s5z", {"colossus": 1} | _3S5Z, {"colossus": 1} | _3S5Z, 180),
        Map("3s5z_vs_3s6z", _3S5Z, {"stalker": 3, "zealot": 6}, 170),
        Map("MMM", _MMM, _MMM, 150),
        Map("MMM2", _MMM, {"marauder": 3, "marine": 8, "medivac": 1}, 180),
        Map("3s_vs_5z", {"stalker": 3}, {"zealot": 5}, 250),
    )
}


def check(battle: Map) -> Map:
    """Returns the map if it can be fought.

    Raises:
      ConfigError: a unit without a row in the table, a team without fighters, or a healer
        whose team has nobody to heal.
    """
    for team in (battle.allies, battle.enemies):
        for name, count in team.items():
            if name not in battle.table:
                known = ", ".join(battle.table)
                raise ConfigError(
                    f"map {battle.name}: there is no row for unit {name}; rows exist for {known}."
                )
            if count < 1:
                raise ConfigError(f"map {battle.name}: {count} of unit {name} is not a team.")
        kinds = [battle.table[name] for name in team]
        for healer in (unit for unit in kinds if unit.healer):
            if not any(healer.heals in unit.tags for unit in kinds):
                raise ConfigError(
                    f"map {battle.name}: the team of {', '.join(team)} has a {healer.name} and "
                    f"nobody {healer.heals} for it to heal."
                )
        if all(unit.healer for unit in kinds):
            raise ConfigError(f"map {battle.name}: a team needs at least one unit that fights.")
    return battle
