"""The suite's units against numbers worked by hand: killing, beams, healing, planes, pushing.

An arena holds two of every unit on both sides; a test places those it needs, the rest are dead.
One step is one tick here, and weapons have no random delay.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs.smac import rules, units
from lorasa_jax.envs.smac.maps import Map
from lorasa_jax.envs.smac.roster import volley
from lorasa_jax.envs.smac.simulation import Battle
from lorasa_jax.envs.smac.ticks import Orders

pytestmark = pytest.mark.optimised  # a thousand ticks of 36 battles
KINDS = ("marine", "marauder", "stalker", "zealot", "colossus", "medivac")
TICKS, CASES = 1000, 36
DT = 1 / 16

# Volleys until the target is dead, attackers in rows. Marine on zealot: 8 volleys of 6 take 48 of
# 50 shields, the 9th a third of itself for the last 2 and two thirds of 6 - 1 for health, 20 more
# of 6 - 1 take the other 96.7.
# Colossus on marine: two hits of 10 + 5 (light), so 30 and 15. Zealot on marauder: 2 (8 - 1) = 14
# a volley, 9 for 125. Stalker on medivac: 13 + 5 - 1 = 17, 9 for 150.
VOLLEYS = {
    "marine": (8, 25, 30, 29, 65, 30),
    "marauder": (5, 7, 9, 17, 19, None),
    "stalker": (4, 8, 10, 13, 21, 9),
    "zealot": (3, 9, 11, 11, 24, None),
    "colossus": (2, 7, 9, 6, 19, None),
    "medivac": (None,) * 6,
}
# Ticks from one volley to the next: cooldown over 1/16 s, rounded up.
PERIODS = {"marine": 14, "marauder": 24, "stalker": 30, "zealot": 20, "colossus": 24}


# Health, shields, armour, reach, radius, separation; damage, hits, bonus, against; cooldown and
# speed in "Normal" seconds: SMAC's unit file and StarCraft's API dump.
ROWS = {
    "marine": (45, 0, 0, 5, 0.375, 0.375, 6, 1, 0, "", 0.861, 2.25),
    "marauder": (125, 0, 1, 6, 0.5625, 0.5625, 10, 1, 10, "armored", 1.5, 2.25),
    "stalker": (80, 80, 1, 6, 0.625, 0.625, 13, 1, 5, "armored", 1.87, 2.953),
    "zealot": (100, 50, 1, 0.1, 0.5, 0.375, 8, 2, 0, "", 1.2, 2.25),
    "colossus": (200, 150, 1, 7, 1.0, 0.75, 10, 2, 5, "light", 1.5, 2.25),
    "medivac": (150, 0, 1, 4, 0.75, 0.75, 0, None, 0, "", None, 2.5),
}


@pytest.fixture(scope="module")
def battle():
    still = dataclasses.replace(
        rules.SUITE, loops=1, delay=lambda key, loops, count, dt: jnp.zeros((loops, count))
    )
    team = dict.fromkeys(KINDS, 2)
    return Battle(Map("arena", team, team, 10**6), still)


@pytest.fixture(scope="module")
def arena(battle):
    """arena([case, ...]) -> traces {name: [tick + 1, ...]} of each.

    A case is (places, orders, changes): {unit: (x, y)}, {unit: target or heading},
    {state field: {unit: value}}; a unit is what `unit(...)` says.
    """

    @jax.jit
    def run(states, orders):
        def tick(states, _):
            after = jax.vmap(battle.advance, in_axes=(None, 0, 0))(KEY, states, orders)
            return after, after

        return jax.lax.scan(tick, states, length=TICKS)[1]

    start = battle.begin(KEY)
    count = battle.num_agents

    def case(places, orders, changes):
        fields = {
            name: np.array(getattr(start, name))
            for name in ("unit_positions", "unit_health", "unit_shields", "unit_energy")
        }
        there = np.isin(np.arange(count), list(places))
        fields["unit_health"][~there] = 0.0
        for i, place in places.items():
            fields["unit_positions"][i] = place
        for name, values in changes.items():
            for i, value in values.items():
                fields[name][i] = value
        heading, target = np.zeros((count, 2), np.float32), np.arange(count, dtype=np.int32)
        for i, order in orders.items():
            if isinstance(order, tuple):
                heading[i] = order
            else:
                target[i] = order
        return start.replace(unit_alive=there, **fields), Orders(heading, target)

    def play(cases):
        cases = [(*each, {})[:3] for each in cases]
        padded = [case(*each) for each in [*cases, *[cases[0]] * (CASES - len(cases))]]
        states, orders = jax.tree.map(lambda *xs: np.stack(xs), *padded)
        trace = jax.tree.map(np.asarray, run(states, orders))
        whole = jax.tree.map(lambda a, b: np.concatenate([a[None], b]), states, trace)
        return [jax.tree.map(lambda x, i=i: x[:, i], whole) for i in range(len(cases))]

    return play


KEY = jax.random.key(0)


def unit(kind, which=0, enemy=False):
    return 2 * KINDS.index(kind) + which + (12 if enemy else 0)


@pytest.mark.full
def test_time_to_kill_of_every_pair(arena):
    pairs = [(attacker, target) for attacker in KINDS for target in KINDS]
    cases = []
    for attacker, target in pairs:
        i, j = unit(attacker), unit(target, enemy=True)
        near = units.STARCRAFT[attacker].radius + units.STARCRAFT[target].radius + 0.05
        cases.append(({i: (10.0, 16.0), j: (10.0 + near, 16.0)}, {i: j}))
    for (attacker, target), trace in zip(pairs, arena(cases), strict=True):
        volleys = VOLLEYS[attacker][KINDS.index(target)]
        alive = trace.unit_alive[:, unit(target, enemy=True)]
        if volleys is None:
            assert alive.all(), (attacker, target)
        else:
            died = int(np.argmin(alive))
            assert died == (volleys - 1) * PERIODS[attacker] + 1, (attacker, target)


@pytest.mark.parametrize(
    "attacker, target, shields, health",
    [
        ("marine", "marine", 6, 6),
        ("marine", "zealot", 6, 5),
        ("marauder", "marine", 10, 10),
        ("marauder", "stalker", 20, 19),
        ("stalker", "colossus", 18, 17),
        ("stalker", "zealot", 13, 12),
        ("zealot", "marauder", 16, 14),
        ("colossus", "zealot", 30, 28),
        ("colossus", "stalker", 20, 18),
        ("stalker", "medivac", 18, 17),
        ("marauder", "medivac", 0, 0),
        ("marauder", "colossus", 20, 19),
        ("zealot", "medivac", 0, 0),
        ("medivac", "marine", 0, 0),
    ],
)
def test_a_volley_by_hand(attacker, target, shields, health):
    table = units.STARCRAFT
    assert volley(table[attacker], table[target]) == (shields, health)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_games(battle, kind):
    """And what a battle makes of them: for radii and separation, sums over pairs."""
    row, roster, i = units.STARCRAFT[kind], battle.roster, unit(kind)
    health, shields, armour, reach, radius, separation, damage, hits, bonus, *rest = ROWS[kind]
    against, cooldown, speed = rest
    assert (row.health, row.shields, row.armor, row.reach) == (health, shields, armour, reach)
    assert (row.radius, row.damage, row.bonus) == (radius, damage, bonus)
    assert (row.against, row.speed, row.sight) == (against, speed, 9)
    assert kind == "medivac" or (row.hits, row.cooldown) == (hits, cooldown)
    np.testing.assert_allclose(roster.health[i], health)
    np.testing.assert_allclose(roster.shields[i], shields)
    np.testing.assert_allclose(roster.sight[i], 9)
    np.testing.assert_allclose(roster.push_distance[i, unit(kind, 1)], 2 * separation)
    np.testing.assert_allclose(roster.reach[i, unit(kind, 1)], reach + 2 * radius)


@pytest.mark.full
def test_weapons_and_healers_reach_as_far_as_told_and_no_further(arena):
    """Edge to edge: a hundredth within it they act at once, a hundredth beyond they do not."""
    cases = []
    for kind in KINDS:
        other = unit("marine", 1, enemy=kind != "medivac")
        for beyond in (-0.01, 0.01):
            away = ROWS[kind][3] + ROWS[kind][4] + ROWS["marine"][4] + beyond
            places = {unit(kind): (10.0, 16.0), other: (10.0 + away, 16.0)}
            cases.append((places, {unit(kind): other}, {"unit_health": {other: 20.0}}))
    traces = arena(cases)
    for kind, within, beyond in zip(KINDS, traces[::2], traces[1::2], strict=True):
        assert within.unit_acted[1, unit(kind)] and not beyond.unit_acted[1, unit(kind)], kind


def test_armour_leaves_half_a_point_of_a_hit():
    weak = dataclasses.replace(units.STARCRAFT["marine"], damage=1.0, hits=3)
    assert volley(weak, units.STARCRAFT["zealot"]) == (3.0, 1.5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_clock(kind):
    """Speeds and cooldowns are those of the "Faster" clock, which is on every web page, / 1.4."""
    faster = {
        "marine": (3.15, 0.61), "marauder": (3.15, 1.07), "stalker": (4.13, 1.34),
        "zealot": (3.15, 0.86), "colossus": (3.15, 1.07), "medivac": (3.5, None),
    }  # fmt: skip
    speed, cooldown = faster[kind]
    row = units.STARCRAFT[kind]
    np.testing.assert_allclose(row.speed * 1.4, speed, rtol=0.005)
    if cooldown:
        np.testing.assert_allclose(row.cooldown / 1.4, cooldown, rtol=0.01)


def test_no_unit_fires_twice_in_a_step():
    """So that one draw of a weapon's delay per step is as good as one per tick."""
    step = rules.SUITE.loops * rules.SUITE.dt
    for row in units.STARCRAFT.values():
        assert row.cooldown - rules.SUITE.dt > step


def test_a_beam_hits_the_line_and_nothing_beside_it(arena):
    """Across the shot up to 1.25 + 0.15 + radius: a zealot (0.5) 1.8 away is hit, at 2 not."""
    shooter = unit("colossus")
    target, other = unit("zealot", enemy=True), unit("zealot", 1, enemy=True)
    own, flyer = unit("marine"), unit("medivac", enemy=True)
    places = {
        "on": (16.0, 17.8),
        "off": (16.0, 18.0),
        "behind": (17.2, 16.0),
        "just behind": (16.6, 16.9),
    }
    cases = [
        (
            {shooter: (10.0, 16.0), target: (16.0, 16.0), other: place,
             own: (16.0, 14.8), flyer: (16.0, 15.5)},
            {shooter: target},
        )
        for place in places.values()
    ]  # fmt: skip
    for name, trace in zip(places, arena(cases), strict=True):
        lost = trace.unit_shields[0] - trace.unit_shields[1]
        assert lost[target] == 30, name
        assert lost[other] == (30 if name in ("on", "just behind") else 0), name
        assert trace.unit_health[1, own] == 45 and trace.unit_health[1, flyer] == 150, name


def test_two_beams_add_up_and_slant_with_the_shot(arena):
    """The shot points along (1, 1), so the line runs along (1, -1)."""
    shooters = [unit("colossus"), unit("colossus", 1)]
    target, other = unit("zealot", enemy=True), unit("zealot", 1, enemy=True)
    start = {shooters[0]: (12.0, 12.0), shooters[1]: (12.1, 12.1), target: (15.0, 15.0)}
    orders = dict.fromkeys(shooters, target)
    along, across = arena(
        [(start | {other: (16.0, 14.0)}, orders), (start | {other: (16.0, 16.0)}, orders)]
    )
    # 60 of damage: 50 shields, the rest, a sixth of two volleys of 28, to health.
    for i in (target, other):
        assert along.unit_shields[1, i] == 0
        np.testing.assert_allclose(along.unit_health[1, i], 100 - 56 / 6, rtol=1e-5)
    assert across.unit_shields[1, other] == 50


def test_healing_rate_energy_and_its_end(arena):
    """9 health a second for 3 energy, 0.5625 energy back: 50 last 50 / 2.4375 = 20.5 s.

    Then the healer waits until it has 5 again, 8.9 s.
    """
    healer, patient = unit("medivac"), unit("marauder")
    enemy = unit("zealot", enemy=True)
    places = {healer: (10.0, 16.0), patient: (11.0, 16.0), enemy: (30.0, 10.0)}
    hurt = {"unit_health": {patient: 1.0}}
    endless, full, spent = arena(
        [
            (places, {healer: patient}, hurt),
            (places, {healer: patient}, {}),
            (places, {healer: patient}, hurt | {"unit_energy": {healer: 4.5}}),
        ]
    )
    health, energy = endless.unit_health[:, patient], endless.unit_energy[:, healer]
    np.testing.assert_allclose(health[16] - 1, 9.0, rtol=1e-5)
    np.testing.assert_allclose(50 - energy[16], 3.0 - 0.5625, rtol=1e-4)
    healed = int(np.argmax(health >= 125.0))
    assert healed == int(np.ceil(124 / 9 * 16))
    assert np.all(np.diff(energy)[healed:] >= 0)

    assert (full.unit_health[:, patient] == 125).all() and not full.unit_acted[:, healer].any()
    np.testing.assert_allclose(full.unit_energy[160, healer], 50 + 5.625, rtol=1e-4)

    # 0.5 energy at 0.5625 / 16 a tick: on the 15th tick there are 5.
    began = int(np.argmax(spent.unit_health[:, patient] > 1.0))
    assert began == int(np.ceil(0.5 / (0.5625 / 16))) + 1


def test_energy_runs_out_and_is_capped(arena):
    healer, patient = unit("medivac"), unit("marauder")
    places = {healer: (10.0, 16.0), patient: (11.0, 16.0)}
    run, rich = arena(
        [
            (places, {healer: patient},
             {"unit_health": {patient: 1.0}, "unit_energy": {healer: 20.0}}),
            (places, {}, {"unit_energy": {healer: 199.9}}),
        ]
    )  # fmt: skip
    energy = run.unit_energy[:, healer]
    empty = int(np.argmax(energy < 0.2))
    np.testing.assert_allclose(empty * DT, 20 / (3 - 0.5625), atol=0.2)
    resting = run.unit_acted[empty + 2 : empty + 130, healer]
    assert not resting.any() and (energy >= 0).all()
    assert run.unit_acted[empty + 150 : empty + 170, healer].any()
    assert rich.unit_energy[:, healer].max() == 200.0


def test_only_biological_units_are_healed_and_healers_do_not_stack(arena):
    healers = [unit("medivac"), unit("medivac", 1)]
    places = {healers[0]: (10.0, 16.0), healers[1]: (10.0, 17.6)}
    marine, zealot, stalker = unit("marine"), unit("zealot"), unit("stalker")
    cases = []
    for patient in (marine, zealot, stalker):
        cases.append(
            (
                places | {patient: (11.5, 16.8)},
                dict.fromkeys(healers, patient),
                {"unit_health": {patient: 10.0}},
            )
        )
    bio, light, machine = arena(cases)
    np.testing.assert_allclose(bio.unit_health[16, marine] - 10, 9.0, rtol=1e-5)
    np.testing.assert_allclose(light.unit_health[16, zealot] - 10, 9.0, rtol=1e-5)
    assert machine.unit_health[16, stalker] == 10
    spent = 50 + 0.5625 - bio.unit_energy[16, healers]
    np.testing.assert_allclose(spent, [3.0, 0.0], atol=1e-3)


def test_an_attack_walks_up_and_fires_edge_to_edge(arena):
    """A zealot reaches 0.1 + 2 radii = 1.1 between centres; it walks 2.25 a second."""
    zealot, marine = unit("zealot"), unit("marine", enemy=True)
    far, near, flyer = arena(
        [
            ({zealot: (10.0, 16.0), marine: (15.0, 16.0)}, {zealot: marine}),
            ({zealot: (10.0, 16.0), marine: (10.97, 16.0)}, {zealot: marine}),
            ({zealot: (10.0, 16.0), unit("medivac", enemy=True): (15.0, 16.0)},
             {zealot: unit("medivac", enemy=True)}),
        ]
    )  # fmt: skip
    assert near.unit_health[1, marine] == 45 - 16
    first = int(np.argmax(far.unit_health[:, marine] < 45))
    # From 5 to 0.975 between centres, and the tick that fires.
    assert first == int(np.ceil((5 - 0.975) / (2.25 * DT))) + 1
    np.testing.assert_allclose(far.unit_positions[16, zealot], [12.25, 16.0], atol=1e-4)
    assert (flyer.unit_positions[:, zealot] == [10.0, 16.0]).all()


def test_cooldowns_stop_at_zero(arena):
    marine, target = unit("marine"), unit("colossus", enemy=True)
    (trace,) = arena([({marine: (10.0, 16.0), target: (13.0, 16.0)}, {marine: target})])
    cooldown = trace.unit_weapon_cooldowns[:, marine]
    np.testing.assert_allclose(cooldown[1], 0.861 - DT, rtol=1e-5)
    assert cooldown.min() == 0.0 and cooldown.max() < 0.861
    assert np.flatnonzero(trace.unit_acted[:, marine])[:3].tolist() == [1, 15, 29]


def test_shields_take_damage_first_and_return_after_ten_seconds(arena):
    zealot, marine = unit("zealot"), unit("marine", enemy=True)
    places = {zealot: (10.0, 16.0), marine: (13.0, 16.0)}
    changes = {"unit_shields": {zealot: 20.0}}
    calm, fired = arena([(places, {}, changes), (places, {marine: zealot}, changes)])
    shields = calm.unit_shields[:, zealot]
    np.testing.assert_allclose(shields[16] - 20, 2.0, rtol=1e-5)
    assert shields.max() == 50
    assert fired.unit_health[1, zealot] == 100 and fired.unit_shields[1, zealot] == 14
    assert fired.unit_calm[1, zealot] == 10.0
    assert fired.unit_shields[14, zealot] == 14


def test_units_push_within_their_layer_only(arena):
    zealot, other = unit("zealot"), unit("zealot", enemy=True)
    colossus, medivac = unit("colossus"), unit("medivac")
    apart, over = arena(
        [
            ({zealot: (10.0, 16.0), other: (10.2, 16.0)}, {}),
            ({zealot: (10.0, 16.0), colossus: (10.2, 16.0), medivac: (10.0, 16.1)}, {}),
        ]
    )
    gap = np.linalg.norm(apart.unit_positions[40, zealot] - apart.unit_positions[40, other])
    np.testing.assert_allclose(gap, 0.75, atol=1e-3)
    for i in (zealot, colossus, medivac):
        assert (over.unit_positions[40, i] == over.unit_positions[0, i]).all()


def test_walls_stop_and_do_not_kill(arena):
    marine = unit("marine")
    for heading, end in (((-1.0, 0.0), (0.0, 16.0)), ((0.0, 1.0), (1.0, 24.0))):
        (trace,) = arena([({marine: (1.0, 16.0)}, {marine: heading})])
        np.testing.assert_allclose(trace.unit_positions[-1, marine], end)
        assert trace.unit_alive[-1, marine]
    np.testing.assert_allclose(trace.unit_positions[8, marine, 1], 16 + 2.25 / 2)


def test_deaths_are_simultaneous(arena):
    one, other = unit("marine"), unit("marine", enemy=True)
    (trace,) = arena(
        [({one: (10.0, 16.0), other: (13.0, 16.0)}, {one: other, other: one})]
    )  # fmt: skip
    assert trace.unit_alive[7 * 14, [one, other]].all()
    assert not trace.unit_alive[7 * 14 + 1, [one, other]].any()
