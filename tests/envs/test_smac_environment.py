"""The suite as an environment: rules of victory, reward, time, views, enemy, bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_training import train

from lorasa_jax import envs
from lorasa_jax.envs import smac
from lorasa_jax.envs.smac import rules, views
from lorasa_jax.envs.smac.enemy import attack_move
from lorasa_jax.envs.smac.environment import Smac
from lorasa_jax.envs.smac.maps import MAPS, Map, check
from lorasa_jax.envs.smac.simulation import FIRST_ATTACK, STOP
from lorasa_jax.errors import ConfigError

KEY = jax.random.key(0)
EAST = 1

# Allies, enemies, SMAC's limit in steps, actions: SMAC's count less its separate "no operation".
FACTS = {
    "2s3z": (5, 5, 120, 10),
    "3s5z": (8, 8, 150, 13),
    "1c3s5z": (9, 9, 180, 14),
    "3s5z_vs_3s6z": (8, 9, 170, 14),
    "MMM": (10, 10, 150, 15),
    "MMM2": (10, 12, 180, 17),
    "3s_vs_5z": (3, 5, 250, 10),
}


@pytest.fixture(scope="module")
def skirmish():
    """A small battle with every kind of rule: healers, shields, a marine that may be alone."""
    team = {"zealot": 1, "marine": 2, "medivac": 1}
    return Smac(Map("skirmish", team, team, 12))


@pytest.fixture(scope="module")
def step(skirmish):
    return jax.jit(skirmish.step)


@pytest.fixture(scope="module")
def start(skirmish):
    return jax.jit(skirmish.reset)(KEY)


# Units of the skirmish: zealot, two marines, medivac, and the same again.
FIGHTERS, MEDIVAC, ENEMIES = [0, 1, 2], 3, [4, 5, 6, 7]


def changed(state, **fields):
    """The state with battle fields {name: {unit: value}} changed; the dead have no health."""
    battle = state.battle
    new = {name: np.array(getattr(battle, name)) for name in fields}
    for name, values in fields.items():
        for i, value in values.items():
            new[name][i] = value
    if "unit_health" in new:
        new["unit_alive"] = new["unit_health"] > 0
    return state._replace(battle=battle.replace(**new))


def stops(env):
    return jnp.full(env.num_agents, STOP)


def legal(env, state):
    return np.asarray(env.battle.legal(state.battle))


@pytest.mark.parametrize("name", MAPS)
def test_sizes_limits_and_agents(name):
    env = smac.make(f"smac_{name}")
    allies, enemies, limit, actions = FACTS[name]
    assert (env.num_agents, env.battle.num_enemies) == (allies, enemies)
    assert (env.max_steps, env.action_space.n) == (limit, actions)
    kinds = [agent.rsplit("_", 1)[0] for agent in env.agents]
    assert {kind: kinds.count(kind) for kind in kinds} == MAPS[name].allies
    assert len(set(env.agents)) == allies


def test_names_and_options():
    assert [f"smac_{name}" for name in FACTS] == list(smac.NAMES)
    assert set(smac.NAMES) <= set(envs.names())
    assert envs.canonical("smac_mmm2") == "smac_MMM2"
    assert envs.make("smac_2s3z", max_steps=7).max_steps == 7
    plain, numbered = envs.make("smac_2s3z", agent_ids=False), envs.make("smac_2s3z")
    assert numbered.observation_size == plain.observation_size + 5


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: smac.make("smac_2c_vs_64zg"), ["smac_2c_vs_64zg", *smac.NAMES]),
        (lambda: envs.make("smac_corridor"), ["smac_corridor", "smac_MMM2"]),
        (lambda: envs.make("smac_2s3z", max_steps=0), ["env.max_steps=0", "at least 1"]),
        (lambda: envs.make("smac_2s3z", max_steps=2.5), ["env.max_steps=2.5", "whole"]),
        (lambda: envs.make("smac_2s3z", sight=3), ["env.sight", "max_steps"]),
        (lambda: check(Map("x", {"baneling": 2}, {"marine": 1}, 9)), ["baneling", "marine", "row"]),
        (lambda: check(Map("x", {"marine": 0}, {"marine": 1}, 9)), ["0 of unit marine"]),
        (
            lambda: check(Map("x", {"stalker": 2, "medivac": 1}, {"marine": 1}, 9)),
            ["medivac", "biological", "stalker"],
        ),
        (lambda: check(Map("x", {"medivac": 2}, {"marine": 1}, 9)), ["medivac", "heal"]),
        (lambda: check(Map("x", {}, {"marine": 1}, 9)), ["fights"]),
    ],
)
def test_bad_input_is_told_in_one_sentence(make, words):
    with pytest.raises(ConfigError) as error:
        make()
    message = str(error.value)
    assert all(word in message for word in words), message
    assert message.endswith(".") and "\n" not in message


def test_spawn_points():
    env = smac.make("smac_3s5z")
    keys = jax.random.split(KEY, 200)
    place = np.asarray(jax.jit(jax.vmap(env.battle.begin))(keys).unit_positions)
    np.testing.assert_allclose(place[:, :8].mean((0, 1)), [9, 16], atol=0.15)
    np.testing.assert_allclose(place[:, 8:].mean((0, 1)), [23, 16], atol=0.15)
    assert np.abs(place[:, :8] - [9, 16]).max() < 4


@pytest.mark.parametrize("name", ["MMM2", "1c3s5z"])
def test_units_stand_beside_each_other_at_the_start(name):
    """What pushing keeps between units of a layer is there but for a tenth at most, in a crowd."""
    battle = smac.make(f"smac_{name}").battle
    place = np.asarray(jax.jit(jax.vmap(battle.begin))(jax.random.split(KEY, 100)).unit_positions)
    gap = np.linalg.norm(place[:, :, None] - place[:, None], axis=-1)
    apart = battle.roster.push_distance
    closest = (gap / np.where(apart > 0, apart, 1.0))[:, apart > 0].min(1)
    assert closest.min() > 0.9 and np.median(closest) > 0.99


def test_truncated_exactly_at_the_limit(skirmish, step, start):
    state, timestep = start
    for t in range(1, skirmish.max_steps + 1):
        assert not timestep.truncated and not timestep.terminated
        # Out of each other's reach, and so without an end.
        state = changed(state, unit_positions={i: (0.5, 10 + i) for i in range(4)})
        state = changed(state, unit_positions={i: (31.5, 6 + i) for i in ENEMIES})
        state, timestep = step(KEY, state, stops(skirmish))
        assert timestep.truncated == (t == skirmish.max_steps)
    assert not timestep.terminated and not timestep.info["won"]


@pytest.mark.parametrize(
    "dead, terminated, won",
    [
        ([], False, False),
        (FIGHTERS, True, False),
        ([0, 1], False, False),
        ([4, 5, 6], True, True),
        ([4, 5, 6, 7], True, True),
        ([7, 3], False, False),
        ([*FIGHTERS, 4, 5, 6], True, False),
        ([*FIGHTERS, 3], True, False),
        (list(range(8)), True, False),
    ],
)
def test_victory_and_defeat(skirmish, step, start, dead, terminated, won):
    """A team of healers alone is beaten; both beaten is no victory."""
    state = changed(start[0], unit_health=dict.fromkeys(dead, 0.0))
    _, timestep = step(KEY, state, stops(skirmish))
    assert timestep.terminated == terminated and timestep.info["won"] == won
    assert timestep.info["won"].dtype == bool
    assert not timestep.truncated
    np.testing.assert_array_equal(timestep.active, [i not in dead for i in range(4)])


def test_a_win_pays_twenty_in_all(skirmish, start):
    """Damage 1 a point, a death 10, a win 200, all times 20 / (what there is of them)."""
    battle = skirmish.battle
    worth = 150 + 45 + 45 + 150
    assert battle.most_reward == worth + 40 + 200
    before = start[0].battle

    def hurt(state, health, shields):
        enemies = np.arange(8) >= 4
        new_health = np.where(enemies, np.minimum(state.unit_health, health), state.unit_health)
        new_shields = np.where(enemies, shields, state.unit_shields)
        return state.replace(
            unit_health=new_health, unit_shields=new_shields, unit_alive=new_health > 0,
            unit_lowest=np.minimum(state.unit_lowest, new_health + new_shields),
        )  # fmt: skip

    none = np.zeros(8)
    first = hurt(before, 100.0, np.array([0, 0, 0, 0, 20.0, 0, 0, 0]))
    np.testing.assert_allclose(
        battle.reward(before, first), (30 + 50) * 20 / battle.most_reward, rtol=1e-5
    )
    healed = first.replace(
        unit_health=battle.roster.health + 0.0, unit_shields=battle.roster.shields + 0.0
    )
    assert battle.reward(first, healed) == 0
    assert battle.reward(healed, hurt(healed, 100.0, first.unit_shields)) == 0
    # Zealot and marines die, the medivac outlives them, which is a victory.
    health = np.array([0, 0, 0, 0, 0, 0, 0, 150.0])
    last = hurt(healed, health, none)
    total = battle.reward(before, first) + battle.reward(healed, last)
    np.testing.assert_allclose(total, 20.0, rtol=1e-5)
    assert battle.reward(last, hurt(last, 0.0, none)) < 20 / 3


def test_own_losses_cost_nothing(skirmish, start):
    """Nor do they pay: a dead zealot, a marine with 20 left, each as low as never before."""
    battle, before = skirmish.battle, start[0].battle
    health = before.unit_health.at[0].set(0.0).at[1].set(20.0)
    shields = before.unit_shields.at[0].set(0.0)
    lost = battle.roster.health + battle.roster.shields - health - shields
    np.testing.assert_array_equal(lost, [150, 25, 0, 0, 0, 0, 0, 0])
    after = before.replace(
        unit_alive=health > 0, unit_health=health, unit_shields=shields,
        unit_lowest=health + shields,
    )  # fmt: skip
    assert battle.reward(before, after) == 0
    # The same among the enemies pays: 175 points of damage and a death.
    mirrored = jax.tree.map(lambda x: jnp.roll(x, 4, axis=0) if x.shape else x, after)
    np.testing.assert_allclose(
        battle.reward(before, mirrored), (175 + 10) * 20 / battle.most_reward, rtol=1e-5
    )


def test_legal_actions(skirmish, start):
    places = {0: (10, 16), 1: (0.5, 16), 2: (16, 8.5), 3: (12, 16),
              4: (15.9, 16), 5: (10, 22.5), 6: (16, 10), 7: (11, 17)}  # fmt: skip
    state = changed(start[0], unit_positions=places)
    mask = legal(skirmish, state)
    # North, east, south, west: a step of 1 must stay within x 0 to 32 and y 8 to 24.
    np.testing.assert_array_equal(mask[1, :5], [1, 1, 1, 0, 1])
    np.testing.assert_array_equal(mask[2, :5], [1, 1, 0, 1, 1])
    # Within 6 of centres, if the weapon reaches the plane: no zealot hits a medivac.
    np.testing.assert_array_equal(mask[0, 5:], [1, 0, 0, 0])
    np.testing.assert_array_equal(mask[2, 5:], [0, 0, 1, 0])
    # The healer's slots are its own team: the zealot is near, marines far, itself never.
    np.testing.assert_array_equal(mask[3, 5:], [1, 0, 0, 0])

    state = changed(state, unit_health={0: 0.0, 6: 0.0})
    mask = legal(skirmish, state)
    np.testing.assert_array_equal(mask[0], np.arange(9) == STOP)
    assert not mask[2, 5:].any() and not mask[3, 5:].any()


@pytest.mark.parametrize("distance, free", [(1.5, True), (1.01, True), (0.99, False)])
def test_the_way_is_open_until_half_a_move_before_the_wall(skirmish, start, distance, free):
    """The walls are at x 0 and 32, y 8 and 24; SMAC looks half of its move of 2 ahead."""
    places = [(16, 24 - distance), (32 - distance, 16), (16, 8 + distance), (distance, 16)]
    state = changed(start[0], unit_positions=dict(enumerate(places)))
    moves = legal(skirmish, state)[:, :4]
    expected = ~np.eye(4, dtype=bool) | free
    np.testing.assert_array_equal(moves, expected)


def test_the_attack_head_heals(skirmish, step, start):
    """Slot 1 of the healer is the first marine; of a marine it is the enemy's."""
    state = changed(
        start[0], unit_positions={1: (9.0, 16.0), 3: (10.0, 16.0)}, unit_health={1: 20.0}
    )
    state = state._replace(legal=jnp.asarray(legal(skirmish, state)))
    actions = stops(skirmish).at[MEDIVAC].set(FIRST_ATTACK + 1)
    after, timestep = step(KEY, state, actions)
    np.testing.assert_allclose(after.battle.unit_health[1], 24.5, rtol=1e-5)
    np.testing.assert_allclose(after.battle.unit_energy[3], 50 - 1.5 + 0.28125, rtol=1e-5)
    assert after.battle.unit_acted[3] and timestep.info["illegal"] == 0


def test_illegal_actions_stop_and_are_counted(skirmish, step, start):
    state, timestep = start
    assert timestep.info["illegal"] == 0
    # No enemy is near: attacks are illegal, and so are numbers that are no action.
    after, timestep = step(KEY, state, jnp.array([FIRST_ATTACK, 99, -3, EAST]))
    assert timestep.info["illegal"] == 3
    still, timestep = step(KEY, state, jnp.array([STOP, STOP, STOP, EAST]))
    assert timestep.info["illegal"] == 0
    np.testing.assert_array_equal(after.battle.unit_positions, still.battle.unit_positions)
    dead = changed(state, unit_health={0: 0.0})
    moved, timestep = step(KEY, dead, jnp.array([EAST, STOP, STOP, STOP]))
    assert timestep.info["illegal"] == 0
    np.testing.assert_array_equal(moved.battle.unit_positions[0], state.battle.unit_positions[0])


def test_a_step_is_half_a_second(skirmish, step, start):
    """Marines walk 2.25 x 0.5 = 1.125, SMAC's step; the medivac 1.25."""
    state = changed(
        start[0],
        unit_positions={0: (4, 12), 1: (4, 16), 2: (4, 20), 3: (4, 9)}
        | {i: (30, 6 + 3 * (i - 3)) for i in ENEMIES},
    )
    state = state._replace(legal=jnp.asarray(legal(skirmish, state)))
    after, _ = step(KEY, state, jnp.full(4, EAST))
    moved = np.asarray(after.battle.unit_positions - state.battle.unit_positions)[:4]
    np.testing.assert_allclose(moved, [[1.125, 0]] * 3 + [[1.25, 0]], atol=1e-4)


def test_delays_are_drawn_once_a_step():
    delays = np.asarray(rules.SUITE.delay(KEY, 8, 500, 1 / 16))
    assert delays.shape == (8, 500) and (delays == delays[0]).all()
    assert delays.min() >= -1 / 16 and delays.max() <= 2 / 16
    np.testing.assert_allclose(delays[0].mean(), 1 / 32, atol=0.01)


def test_what_agents_see(skirmish, start):
    """[enemies | other allies | oneself]; nothing beyond 9, nothing for the dead."""
    env = skirmish
    places = {0: (10, 16), 1: (13, 16), 2: (31, 16), 3: (10, 12),
              4: (10, 19), 5: (20, 16), 6: (18, 16), 7: (10, 22)}  # fmt: skip
    state = changed(
        start[0],
        unit_positions=places,
        unit_health={4: 50.0, 3: 75.0, 6: 0.0},
        unit_shields={4: 10.0},
        unit_energy={3: 100.0},
    )
    mask = legal(env, state)
    obs = np.asarray(views.observations(env.battle, state.battle, jnp.asarray(mask)))
    each = 4 + 2 + 3  # flag, distance, offset; health, shields; three types
    assert obs.shape == (4, env.observation_size) == (4, 4 * each + 3 * each + 4 + 3 + 5)
    enemies = obs[:, : 4 * each].reshape(4, 4, each)
    allies = obs[:, 4 * each : 7 * each].reshape(4, 3, each)
    own = obs[:, 7 * each :]
    kinds = np.eye(3)[[1, 0, 2]]  # zealot, marine, medivac in the table's order
    np.testing.assert_allclose(enemies[0, 0], [1, 1 / 3, 0, 1 / 3, 0.5, 0.2, *kinds[0]], atol=1e-6)
    assert not enemies[0, 1].any(), "10 away"
    assert not enemies[0, 2].any(), "dead"
    np.testing.assert_allclose(enemies[0, 3, :2], [0, 2 / 3], atol=1e-6)
    np.testing.assert_allclose(allies[0, 0, :4], [1, 1 / 3, 1 / 3, 0], atol=1e-6)
    assert not allies[0, 1].any(), "21 away"
    np.testing.assert_allclose(
        own[3], [1, 1, 1, 1, (10 - 16) / 16, -0.5, 0.5, 0.5, 0, *kinds[2]], atol=1e-6
    )
    dead = changed(state, unit_health={0: 0.0})
    obs = views.observations(env.battle, dead.battle, jnp.asarray(legal(env, dead)))
    assert not np.asarray(obs)[0].any()


def test_what_critics_are_shown(skirmish, start):
    """[oneself | legal | relations to each unit | every unit | time left], by hand."""
    env = skirmish
    places = {0: (10, 16), 1: (13, 18), 2: (31, 16), 3: (10, 12),
              4: (10, 19), 5: (20, 16), 6: (18, 16), 7: (10, 22)}  # fmt: skip
    state = changed(
        start[0],
        unit_positions=places,
        unit_health={4: 50.0, 3: 75.0, 6: 0.0},
        unit_shields={4: 10.0},
        unit_lowest={4: 45.0, 3: 60.0},
        unit_calm={4: 7.5},
        unit_energy={3: 100.0},
        unit_weapon_cooldowns={1: 0.861 / 2},
        unit_targets={4: 1, 5: 0, 0: 4, 6: 1},
    )
    state = state._replace(battle=state.battle.replace(step=jnp.int32(9)))
    mask = legal(env, state)
    rows = np.asarray(views.critic_states(env.battle, state.battle, jnp.asarray(mask)))
    each = 1 + 2 + 3 + 2 + 3  # alive; place; weapon, lowest, calm; health, shields; three types
    assert rows.shape == (4, env.state_size) == (4, each + 9 + 8 * 4 + 8 * each + 1)
    relations = rows[:, each + 9 : each + 9 + 32].reshape(4, 8, 4)
    everyone = rows[:, each + 9 + 32 : -1].reshape(4, 8, each)
    np.testing.assert_allclose(rows[:, -1], 1 - 9 / 12, rtol=1e-6)
    np.testing.assert_array_equal(everyone, np.broadcast_to(everyone[0], everyone.shape))
    np.testing.assert_array_equal(rows[:, :each], everyone[0, :4])
    np.testing.assert_array_equal(rows[:, each : each + 9], mask)

    kinds = np.eye(3)[[1, 0, 2]]  # zealot, marine, medivac in the table's order
    by_hand = {
        0: [1, -6 / 16, 0, 0, 1, 0, 1, 1, *kinds[0]],
        1: [1, -3 / 16, 2 / 8, 0.5, 1, 0, 1, 0, *kinds[1]],
        3: [1, -6 / 16, -4 / 8, 100 / 200, 60 / 150, 0, 0.5, 0, *kinds[2]],
        4: [1, -6 / 16, 3 / 8, 0, 45 / 150, 0.75, 0.5, 0.2, *kinds[0]],
        6: np.zeros(each),
    }
    for i, expected in by_hand.items():
        np.testing.assert_allclose(everyone[0, i], expected, atol=1e-6, err_msg=str(i))

    # Offset over 32, in sight within 9, aims at the agent; nothing of the dead.
    np.testing.assert_allclose(relations[0, 4], [0, 3 / 32, 1, 0], atol=1e-6)
    np.testing.assert_allclose(relations[0, 5], [10 / 32, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(relations[1, 4], [-3 / 32, 1 / 32, 1, 1], atol=1e-6)
    assert not relations[:, 6].any()
    np.testing.assert_array_equal(relations[2, :, 3], np.arange(8) == 2, "only it, at itself")


def test_states_are_bounded_and_each_agents_own(skirmish, step, start):
    """Whole episodes of random legal actions, and what their critics are shown."""
    state, timestep = start
    rng = np.random.default_rng(0)
    for _ in range(skirmish.max_steps):
        for seen in (timestep.obs, timestep.state):
            assert np.isfinite(seen).all() and np.abs(seen).max() <= 1.0
        rows = np.asarray(timestep.state)
        assert len(np.unique(rows, axis=0)) == 4
        actions = [rng.choice(np.flatnonzero(row)) for row in np.asarray(timestep.legal)]
        state, timestep = step(KEY, state, jnp.array(actions))


def test_the_enemy_goes_to_the_allies_spawn(skirmish, step, start):
    """Enemies that notice nobody walk there; marines 1.125 a step, and stay."""
    state = changed(start[0], unit_positions={i: (1, 9 + i / 2) for i in range(4)})
    state = changed(state, unit_positions={4: (25, 16), 5: (20, 10), 6: (9.2, 16), 7: (25, 20)})
    before = state.battle.unit_positions
    after, _ = step(KEY, state, stops(skirmish))
    moved = np.asarray(after.battle.unit_positions - before)
    goal = np.array([9.0, 16.0]) - np.asarray(before)
    for i in (4, 5):
        np.testing.assert_allclose(moved[i], 1.125 * goal[i] / np.linalg.norm(goal[i]), atol=1e-3)
    np.testing.assert_allclose(after.battle.unit_positions[6], [9, 16], atol=1e-3)
    # The healer follows the nearest fighter, 4 to its south.
    np.testing.assert_allclose(moved[7], [0, -1.25], atol=0.02)


def test_the_enemy_takes_the_nearest_and_stays_with_it(skirmish, start):
    env = skirmish
    places = {0: (16, 16), 1: (17, 18), 2: (2, 9), 3: (17, 16),
              4: (18.5, 16), 5: (20, 16), 6: (28, 20), 7: (27, 9)}  # fmt: skip
    state = changed(start[0], unit_positions=places, unit_calm=dict.fromkeys(range(8), 0.0))

    def targets(state):
        return np.asarray(attack_move(env.battle, state.battle).target)

    # The zealot's nearest is the medivac, which it cannot hit; marines shoot at it; one is far.
    np.testing.assert_array_equal(targets(state), [0, 3, 6, 7])
    kept = changed(state, unit_targets={5: 0})
    assert targets(kept)[1] == 0
    out_of_range = changed(kept, unit_positions={0: (13, 16)})
    assert targets(out_of_range)[1] == 3
    # Under fire, the whole team looks as far as 9: the far marine now sees nobody nearer.
    alarmed = changed(state, unit_calm={4: 9.5}, unit_positions={6: (24.5, 20)})
    assert targets(changed(alarmed, unit_calm={4: 0.0}))[2] == 6
    assert targets(alarmed)[2] in (1, 3)
    # A wounded marine draws the healer, the worse wounded one first if both are near.
    near = {5: (26, 10), 6: (27, 11)}
    hurt = changed(state, unit_positions=near, unit_health={5: 30.0, 6: 20.0})
    assert targets(hurt)[3] == 6
    empty = changed(hurt, unit_energy={7: 4.0})
    assert targets(empty)[3] == 7
    # It takes 5 energy to begin, and none to go on.
    going_on = changed(hurt, unit_energy={7: 3.0}, unit_healing={7: True})
    assert targets(going_on)[3] == 6


@pytest.mark.parametrize("energy, healing, heals", [(50, False, True), (3, True, True),
                                                    (3, False, False)])  # fmt: skip
def test_the_enemys_medivac_heals(skirmish, step, start, energy, healing, heals):
    """Half a second: 4.5 health for 1.5 energy, and no reward or price for the allies."""
    state = changed(
        start[0],
        unit_positions={i: (1, 9 + i / 2) for i in range(4)}
        | {4: (31, 23), 5: (20, 16), 6: (31, 21), 7: (21, 16)},
        unit_health={5: 20.0},
        unit_lowest={5: 20.0},
        unit_energy={7: energy},
        unit_healing={7: healing},
    )
    after, timestep = step(KEY, state, stops(skirmish))
    np.testing.assert_allclose(after.battle.unit_health[5], 24.5 if heals else 20, rtol=1e-5)
    spent = 1.5 if heals else 0.0
    np.testing.assert_allclose(after.battle.unit_energy[7], energy - spent + 0.28125, rtol=1e-5)
    assert after.battle.unit_acted[7] == heals and timestep.reward == 0


@pytest.mark.upstream
def test_jaxmarls_api(skirmish):
    """`Battle` is still a JaxMARL environment for both teams; enemy slots count backwards."""
    battle = skirmish.battle
    obs, state = battle.reset(KEY)
    assert obs["ally_0"].shape == battle.observation_spaces["ally_0"].shape
    assert obs["world_state"].shape == (battle.state_size,)
    assert battle.action_space("enemy_3").n == 9
    places = np.array(state.unit_positions)
    places[5], places[2] = (12.0, 16.0), (11.0, 16.0)
    places[[0, 1, 3, 4, 6, 7]] = [[1, 9 + i] for i in range(6)]
    state = state.replace(unit_positions=jnp.asarray(places))
    masks = battle.get_avail_actions(state)
    assert masks["enemy_1"][5:].tolist() == [0, 1, 0, 0]  # the medivac, then the second marine
    actions = {agent: STOP for agent in battle.agents} | {"enemy_1": FIRST_ATTACK + 1}
    obs, after, rewards, dones, infos = battle.step_env(KEY, state, actions)
    assert after.unit_health[2] < 45 and rewards["ally_0"] == 0 and not dones["__all__"]
    assert np.isfinite(jax.tree.leaves(obs)[0]).all() and infos == {}


def test_a_map_of_ones_own():
    table = dict(MAPS["3s5z"].table)
    table["giant"] = dataclasses.replace(table["zealot"], name="giant", letter="G", health=500.0)
    env = Smac(Map("own", {"giant": 1}, {"marine": 3}, 40, table))
    assert env.agents == ("giant_0",) and env.max_steps == 40
    state, timestep = jax.jit(env.reset)(KEY)
    assert timestep.obs.shape == (1, env.observation_size)
    assert state.battle.unit_health[0] == 500


@pytest.mark.long
@pytest.mark.parametrize("sharing", ["ps", "nps", "ps_lora"])
def test_trains(sharing):
    """Two updates: everything finite, episodes end, parameters move; adapters in their phase."""
    words = ["switch_at=80", "sharing.rank=2"] if sharing == "ps_lora" else []
    team, progress = train(
        "env=smac_3s_vs_5z", "env.max_steps=10", "network.kind=ff", "network.hidden=8",
        "algo.num_envs=2", "algo.rollout_length=10", "total_steps=160", f"sharing={sharing}",
        *words,
    )  # fmt: skip
    assert team.env.num_agents == 3 and progress.episodes.count[0] == 4
    assert ("adapters" in team.actor.scheme.trained) == (sharing == "ps_lora")
