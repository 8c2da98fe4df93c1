"""The suite's battle under upstream's rules and unit table, against upstream's own step.

Both step the same states with the same keys; upstream's states go on. What differs on purpose is
in the table of `rules`, and has its tests in test_smac_environment.py and test_smac_units.py.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs.smac import units
from lorasa_jax.envs.smac.maps import Map
from lorasa_jax.envs.smac.rules import UPSTREAM
from lorasa_jax.envs.smac.simulation import FIRST_ATTACK, Battle
from lorasa_jax.envs.stacked import upstream

pytestmark = pytest.mark.upstream

EPISODES, STEPS = 16, 70
MAPS = {
    "3s_vs_5z": ({"stalker": 3}, {"zealot": 5}),
    "3s5z_vs_3s6z": ({"stalker": 3, "zealot": 5}, {"stalker": 3, "zealot": 6}),
    "2s3z": ({"stalker": 2, "zealot": 3}, {"stalker": 2, "zealot": 3}),
    "5m_vs_6m": ({"marine": 5}, {"marine": 6}),
    "6h_vs_8z": ({"hydralisk": 6}, {"zealot": 8}),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(MAPS)[1:]]
SHARED = (
    "unit_positions", "unit_alive", "unit_health", "unit_weapon_cooldowns",
    "prev_movement_actions", "prev_attack_actions", "unit_teams", "step",
)  # fmt: skip


def test_upstreams_unit_table():
    """Row for row the defaults of upstream's constructor."""
    smax = upstream("jaxmarl.environments.smax.smax_env").SMAX
    defaults = {name: value.default for name, value in inspect.signature(smax).parameters.items()}
    columns = {
        "velocities": "speed", "attacks": "damage", "attack_ranges": "reach",
        "sight_ranges": "sight", "radiuses": "radius", "health": "health",
        "weapon_cooldowns": "cooldown",
    }  # fmt: skip
    assert tuple(defaults["unit_type_names"]) == tuple(units.SMAX)
    for theirs, ours in columns.items():
        row = [getattr(unit, ours) for unit in units.SMAX.values()]
        np.testing.assert_allclose(defaults[f"unit_type_{theirs}"], row, rtol=1e-6)
    assert defaults["time_per_step"] == UPSTREAM.dt
    assert defaults["world_steps_per_env_step"] == UPSTREAM.loops


@pytest.fixture(scope="module", params=["3s_vs_5z", *SLOW])
def played(request):
    """Upstream's states and what both made of them: [episode, step, ...]."""
    smax = upstream("jaxmarl.environments.smax")
    theirs = smax.SMAX(scenario=smax.map_name_to_scenario(request.param))
    allies, enemies = MAPS[request.param]
    ours = Battle(Map(request.param, allies, enemies, 10**6, units.SMAX), UPSTREAM)

    def extended(state):
        """Upstream's state as the suite's; no enemy has been lower than now."""
        start = ours.begin(jax.random.key(0))
        shared = {name: getattr(state, name) for name in SHARED}
        return start.replace(**shared, unit_lowest=state.unit_health)

    def act(key, legal):
        """Mostly an attack where there is one, mostly towards the other team else."""
        odds = jnp.full(legal.shape[-1], 0.1).at[FIRST_ATTACK:].set(4.0)
        team = jnp.arange(len(legal)) < ours.num_allies
        odds = jnp.tile(odds, (len(legal), 1)).at[:, 1].add(team).at[:, 3].add(~team)
        return jax.random.categorical(key, jnp.where(legal > 0, jnp.log(odds), -1e9))

    def step(state, key):
        act_key, step_key = jax.random.split(key)
        masks = theirs.get_avail_actions(state)
        width = max(len(mask) for mask in masks.values())
        legal = jnp.stack([jnp.pad(mask, (0, width - len(mask))) for mask in masks.values()])
        chosen = act(act_key, legal)
        actions = {agent: chosen[i] for i, agent in enumerate(theirs.agents)}
        own = extended(state)
        same = {"legal": ours.get_avail_actions(own)}
        obs, after, rewards, dones, _ = theirs.step_env(step_key, state, actions)
        obs2, after2, rewards2, dones2, _ = ours.step_env(step_key, own, actions)
        seen = {"legal": masks, "after": after, "dones": dones, "obs": obs, "rewards": rewards}
        same |= {"after": after2, "dones": dones2, "obs": obs2, "rewards": rewards2}
        return after, (seen, same)

    def episode(key):
        reset_key, key = jax.random.split(key)
        state, state2 = theirs.reset(reset_key)[1], ours.reset(reset_key)[1]
        _, steps = jax.lax.scan(step, state, jax.random.split(key, STEPS))
        return steps, (state, state2)

    keys = jax.random.split(jax.random.key(1), EPISODES)
    (seen, same), starts = jax.jit(jax.vmap(episode))(keys)
    return theirs, ours, *jax.tree.map(np.asarray, (seen, same, starts))


def test_resets_are_equal(played):
    _, _, _, _, (theirs, ours) = played
    for name in SHARED:
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)
    np.testing.assert_array_equal(ours.unit_types.shape, theirs.unit_types.shape)


def test_every_step_moves_units_alike(played):
    _, _, theirs, ours, _ = played
    theirs, ours = theirs["after"], ours["after"]
    assert 0.1 < theirs.unit_alive.mean() < 0.9, "a real battle"
    for name in SHARED:
        expected = getattr(theirs, name)
        if name == "unit_weapon_cooldowns":  # upstream's fall on below zero
            expected = np.maximum(expected, 0.0)
        np.testing.assert_allclose(getattr(ours, name), expected, atol=2e-4, err_msg=name)


def test_legal_actions_and_deaths_are_equal(played):
    _, _, theirs, ours, _ = played
    for agent, mask in theirs["legal"].items():
        np.testing.assert_array_equal(ours["legal"][agent], mask, err_msg=agent)
        np.testing.assert_array_equal(ours["dones"][agent], theirs["dones"][agent])
    # Upstream's time limit of 100 is beyond the 70 steps; ours is far away.
    np.testing.assert_array_equal(ours["dones"]["__all__"], theirs["dones"]["__all__"])


def test_upstreams_own_observations_are_equal(played):
    """But for the one-hot types, of which a map here has those that take part."""
    theirs_env, ours_env, theirs, ours, _ = played
    types = [list(units.SMAX).index(unit.name) for unit in ours_env.battle.types]
    others = theirs_env.num_agents - 1
    wide, own_wide = len(theirs_env.unit_features), len(theirs_env.own_features)
    each = [*range(wide - 6), *(wide - 6 + t for t in types)]
    own = [*range(own_wide - 6), *(own_wide - 6 + t for t in types)]
    columns = [i * wide + c for i in range(others) for c in each]
    columns += [others * wide + c for c in own]
    for agent in theirs_env.agents:
        expected = theirs["obs"][agent][..., columns]
        np.testing.assert_allclose(ours["obs"][agent], expected, atol=2e-4)


def test_rewards_are_the_same_damage_in_other_units(played):
    """Where all enemies are alike, upstream's share of health lost tells the points of damage."""
    _, env, theirs, ours, _ = played
    health = env.roster.health[env.num_allies :]
    if len(set(health)) > 1:
        pytest.skip("upstream's sum of shares does not tell whose health it was")
    paid = theirs["rewards"]["ally_0"]
    alive = theirs["after"].unit_alive
    before = np.concatenate([np.ones_like(alive[:, :1]), alive[:, :-1]], axis=1)
    died = (before & ~alive)[..., env.num_allies :].sum(-1)
    fought = ~theirs["dones"]["__all__"]
    assert (died[fought] > 0).any() and (paid[fought] > 0).any()
    points = paid * len(health) * health[0] + 10 * died
    expected = points * 20 / (health.sum() + 10 * len(health) + 200)
    np.testing.assert_allclose(ours["rewards"]["ally_0"][fought], expected[fought], atol=1e-4)
