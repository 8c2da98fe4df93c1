"""Units as data: StarCraft's, and the rows that upstream SMAX gives to its own.

All times are in StarCraft's "Normal" seconds, of 16 game loops each; that is the clock of SMAC's
own unit data. Prices per "Faster" second, which most tables on the web show, are 1.4 times larger.
Sources: SMAC's unit file for its RL units (health, shields, armour, cooldown, speed, energy), the
StarCraft II API's data dump of version 4.6 to 4.10 (damage, bonus, tags, radii).
"""

from dataclasses import dataclass

GROUND, AIR = "ground", "air"


@dataclass(frozen=True)
class Unit:
    """One type of unit. Distances in map units, times in seconds, rates per second.

    damage, hits, bonus: a volley is `hits` hits, each `damage`, plus `bonus` if the target has
    the tag `against`; armour takes its value from every hit on health, none from hits on shields.
    reach: the weapon's range, or a healer's. planes: whose weapons hit it; targets: planes its own
    weapon hits. layer: units push each other only within one. separation: the radius of pushing,
    radius the one of ranges. beam: (half length, width) of the line through the target, across the
    shot, on which enemies are hit as well. heal: health per second, to units with the tag `heals`.
    """

    name: str
    letter: str
    health: float
    reach: float
    speed: float
    radius: float
    shields: float = 0.0
    armor: float = 0.0
    damage: float = 0.0
    hits: int = 1
    bonus: float = 0.0
    against: str = ""
    cooldown: float = 1.0
    sight: float = 9.0
    separation: float | None = None
    tags: tuple[str, ...] = ()
    planes: tuple[str, ...] = (GROUND,)
    targets: tuple[str, ...] = (GROUND, AIR)
    layer: str = GROUND
    beam: tuple[float, float] | None = None
    heal: float = 0.0
    heals: str = ""

    @property
    def healer(self) -> bool:
        return self.heal > 0.0


# Energy of healers: SMAC's unit data; 3 health a point of energy, 5 points to begin with.
ENERGY_FULL, ENERGY_AT_START, ENERGY_RATE = 200.0, 50.0, 0.5625
HEALTH_PER_ENERGY, ENERGY_TO_BEGIN = 3.0, 5.0
# Shields return 10 seconds after the last damage.
SHIELD_RATE, SHIELD_DELAY = 2.0, 10.0


def _table(*units: Unit) -> dict[str, Unit]:
    return {unit.name: unit for unit in units}


# SMAC shows every agent what is within 9, whatever the unit's own sight. Its allies' copy of the
# Medivac flies at 2.75, once it has accelerated; both teams have StarCraft's here, at 2.5 at once.
STARCRAFT = _table(
    Unit(
        "marine", "m", health=45, reach=5, speed=2.25, radius=0.375,
        damage=6, cooldown=0.861, tags=("light", "biological"),
    ),
    Unit(
        "marauder", "M", health=125, armor=1, reach=6, speed=2.25, radius=0.5625,
        damage=10, bonus=10, against="armored", cooldown=1.5,
        tags=("armored", "biological"), targets=(GROUND,),
    ),
    Unit(
        "stalker", "s", health=80, shields=80, armor=1, reach=6, speed=2.953, radius=0.625,
        damage=13, bonus=5, against="armored", cooldown=1.87, tags=("armored", "mechanical"),
    ),
    Unit(
        "zealot", "Z", health=100, shields=50, armor=1, reach=0.1, speed=2.25, radius=0.5,
        separation=0.375, damage=8, hits=2, cooldown=1.2, tags=("light", "biological"),
        targets=(GROUND,),
    ),
    Unit(
        "colossus", "C", health=200, shields=150, armor=1, reach=7, speed=2.25, radius=1.0,
        separation=0.75, damage=10, hits=2, bonus=5, against="light", cooldown=1.5,
        tags=("armored", "mechanical", "massive"), planes=(GROUND, AIR), targets=(GROUND,),
        layer="cliff", beam=(1.25, 0.15),
    ),
    Unit(
        "medivac", "v", health=150, armor=1, reach=4, speed=2.5, radius=0.75,
        tags=("armored", "mechanical"), planes=(AIR,), targets=(), layer=AIR,
        heal=9.0, heals="biological",
    ),
)  # fmt: skip


def _plain(name, letter, speed, damage, reach, sight, radius, health, cooldown) -> Unit:
    return Unit(
        name, letter, health=health, reach=reach, speed=speed, radius=radius, damage=damage,
        cooldown=cooldown, sight=sight,
    )  # fmt: skip


# JaxMARL 0.2's defaults, for comparison with it; its clock is mixed and its ranges are between
# centres.
SMAX = _table(
    _plain("marine", "m", 3.15, 9, 5, 9, 0.375, 45, 0.61),
    _plain("marauder", "M", 2.25, 10, 6, 10, 0.5625, 125, 1.07),
    _plain("stalker", "s", 4.13, 13, 6, 10, 0.625, 160, 1.87),
    _plain("zealot", "Z", 3.15, 8, 2, 9, 0.5, 150, 0.86),
    _plain("zergling", "z", 4.13, 5, 2, 8, 0.375, 35, 0.5),
    _plain("hydralisk", "h", 3.15, 12, 5, 9, 0.625, 80, 0.59),
)
