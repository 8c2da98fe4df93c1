"""SMAX: equal to upstream where upstream is right; one test for each of its traps."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from short_training import HURRY, train

from lorasa_jax import envs
from lorasa_jax.envs import smax
from lorasa_jax.envs.stacked import upstream
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import rollout

pytestmark = pytest.mark.upstream

KEY = jax.random.key(0)
STEPS = 60
# What a sum may differ by. Where a compiler fuses a product into a sum, or in which order it adds
# up, and the last bit of a cosine, differ between machines and programs; eight ticks add up so
# much. All else is equal exactly.
ROUNDING = {
    "unit_positions": 5e-5, "obs": 1e-5, "reward": 1e-6,
    "prev_movement_actions": 1e-6, "unit_weapon_cooldowns": 1e-6,
}  # fmt: skip
QUICK = ("2s3z", "smacv2_5_units")
SLOW = [name[5:] for name in smax.NAMES if name[5:] not in QUICK]


def brave(key, legal):
    """Random legal actions that like to attack, and else to walk towards the enemy."""
    taste = jnp.where(jnp.arange(legal.shape[-1]) > smax.STOP, 2.0, 0.0).at[1].set(1.0)
    return jnp.argmax(jnp.where(legal, taste + jax.random.gumbel(key, legal.shape), -1e9), axis=-1)


@functools.cache
def battles(name, **options):
    """Episodes played by us and by upstream with equal keys and actions: env, ours, differences.

    ours: time steps [episode, step, ...]; differences: numbers that are not equal, per quantity
    (ROUNDING);
    coldest: upstream's least cooldown. Nothing is reset at an episode's end.
    """
    env = smax.make(f"smax_{name}", **options)
    game = env.game

    def stack(by_agent):
        return jnp.stack([by_agent[agent] for agent in game.agents])

    def differences(obs, timestep, theirs, ours):
        memory = vars(theirs.enemy_policy_state).items()
        pairs = {
            "obs": (stack(obs), timestep.obs),
            "legal": (stack(game.get_avail_actions(theirs)), timestep.legal),
            **{name: (value, getattr(ours.enemy_policy_state, name)) for name, value in memory},
            **{
                name: (getattr(theirs.state, name), value)
                for name, value in vars(ours.state).items()
            },
        }
        return {
            name: jnp.sum(jnp.abs(a.astype(float) - b) > ROUNDING.get(name, 0.0))
            for name, (a, b) in pairs.items()
        }

    def episode(key):
        reset_key, key = jax.random.split(key)
        obs, theirs = game.reset(reset_key)
        ours, timestep = env.reset(reset_key)
        first = differences(obs, timestep, theirs, ours.upstream)

        def step(carry, key):
            ours, timestep, theirs = carry
            act_key, step_key = jax.random.split(key)
            actions = brave(act_key, timestep.legal)
            ours, timestep = env.step(step_key, ours, actions)
            by_agent = {agent: actions[i] for i, agent in enumerate(game.agents)}
            obs, theirs, rewards, dones, _ = game.step_env(step_key, theirs, by_agent)
            unequal = differences(obs, timestep, theirs, ours.upstream)
            off = jnp.abs(stack(rewards) - timestep.reward)
            unequal["reward"] = jnp.sum(off > ROUNDING["reward"])
            unequal["active"] = jnp.sum(stack(dones) == timestep.active)
            unequal["terminated"] = jnp.sum(dones["__all__"] != timestep.terminated)
            coldest = theirs.state.unit_weapon_cooldowns.min()
            # From the same state again, so that a last bit cannot grow over the steps.
            return (ours._replace(upstream=theirs), timestep, theirs), (timestep, unequal, coldest)

        carry = ours, timestep, theirs
        timestep, unequal, coldest = jax.lax.scan(step, carry, jax.random.split(key, STEPS))[1]
        return timestep, (first, unequal), coldest

    episodes = 128 if env.rules.num_agents <= 20 else 32
    timestep, unequal, coldest = jax.jit(jax.vmap(episode))(jax.random.split(KEY, episodes))
    return env, timestep, jax.tree.map(lambda x: int(x.sum()), unequal), float(coldest.min())


@pytest.mark.optimised
@pytest.mark.full
@pytest.mark.sample(1)
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_episodes_equal_upstreams(name):
    """Observations, legal actions, deaths, rewards, endings and the whole state, step by step."""
    compare(battles(name))


@pytest.mark.optimised
@pytest.mark.slow
def test_options_equal_upstreams():
    compare(battles("5m_vs_6m", see_enemy_actions=False, walls_cause_death=False))


def compare(results):
    env, timestep, (at_reset, in_steps), _ = results
    assert set(at_reset.values()) == {0} and len(at_reset) == 14, at_reset
    assert not any(in_steps.values()), {k: v for k, v in in_steps.items() if v}
    assert not timestep.active.all() and (timestep.reward > 0).any()
    assert timestep.terminated.any() or env.rules.num_agents > 20
    assert timestep.info["illegal"].sum() == 0


@contextlib.contextmanager
def scenario(*values):
    """A map of this scenario, for as long as upstream knows it."""
    registry = upstream("jaxmarl.environments.smax.smax_env")
    registry.register_scenario("own", registry.Scenario(*values))
    try:
        yield smax.make("smax_own")
    finally:
        del registry.MAP_NAME_TO_SCENARIO["own"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("sizes", [(2, 5), (4, 3)])
@pytest.mark.parametrize("drawn", [(True, True), (True, False), (False, True)])
def test_unequal_teams_begin_as_upstreams(sizes, drawn):
    """Positions, types, or both drawn by the episode, whichever team is larger."""
    with scenario(jnp.arange(sum(sizes), dtype=jnp.uint8) % 6, *sizes, *drawn) as env:
        keys = jax.random.split(KEY, 64)
        theirs = jax.jit(jax.vmap(lambda key: env.game.reset(key)[1]))(keys)
        ours = jax.jit(jax.vmap(lambda key: env.reset(key)[0].upstream))(keys)
    for name, value in vars(theirs.state).items():
        mine = getattr(ours.state, name)
        assert mine.dtype == value.dtype
        np.testing.assert_allclose(mine, value, rtol=0, atol=ROUNDING.get(name, 0.0), err_msg=name)
    jax.tree.map(np.testing.assert_array_equal, ours.enemy_policy_state, theirs.enemy_policy_state)


@pytest.mark.parametrize("name", ["2s3z", "smacv2_5_units"])  # no multiple of the loop's steps
def test_units_push_each_other_apart_as_upstreams_on_every_device(name):
    """Crowded, some dead: in turn as on a CPU, and at once as on accelerators."""
    env = smax.make(f"smax_{name}")
    keys = jax.random.split(KEY, 64)

    def pushed(key):
        place_key, alive_key, reset_key = jax.random.split(key, 3)
        battle = env.reset(reset_key)[0].upstream.state
        alive = jax.random.bernoulli(alive_key, 0.8, battle.unit_alive.shape)
        place = 16 + 2 * jax.random.uniform(place_key, battle.unit_positions.shape)
        battle = battle.replace(unit_positions=place, unit_alive=alive)
        radius = env.rules.unit_type_radiuses[battle.unit_types]
        ways = (smax._shifts_in_turn, smax._shifts_at_once)
        ours = [jnp.stack(smax._push(*place.T, alive, radius, way), axis=-1) for way in ways]
        return place, env.rules._push_units_away(battle).unit_positions, ours

    place, theirs, ours = jax.jit(jax.vmap(pushed))(keys)
    assert np.mean(np.asarray(place != theirs)) > 0.5
    for mine in ours:
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=ROUNDING["unit_positions"])


def played(timestep):
    """[episode, step]: steps up to the one that ends the episode."""
    over = np.asarray(timestep.terminated)
    return np.cumsum(over, axis=1) - over == 0


@pytest.mark.full
def test_time_outs_last_max_steps_and_are_no_terminations():
    """Upstream's last one step longer and look like any other ending."""
    env = smax.make("smax_3m", max_steps=4)
    stop = jnp.full(3, smax.STOP)
    by_agent = {agent: smax.STOP for agent in env.game.agents}
    state, _ = small()[1](KEY)
    theirs, step = state.upstream, jax.jit(env.step)
    for t in range(1, 6):
        state, timestep = step(KEY, state, stop)
        _, theirs, _, dones, _ = env.game.step_env(KEY, theirs, by_agent)
        assert not timestep.terminated
        assert timestep.truncated == (t >= 4)
        assert dones["__all__"] == (t == 5)


@functools.cache
def small():
    """The smallest map, its compiled reset and step, and what it shows of a state of upstream's."""
    env = smax.make("smax_3m")

    @jax.jit
    def show(state):
        return env._timestep(state, jnp.zeros(()), jnp.zeros((), bool), jnp.zeros((), int))

    return env, jax.jit(env.reset), jax.jit(env.step), show


def injected(**fields):
    """State and time step after a reset of the smallest map, some of upstream's fields replaced."""
    _, reset, _, show = small()
    state = reset(KEY)[0].upstream
    return show(state.replace(state=state.state.replace(**fields)))


@pytest.mark.parametrize("steps", [10, 59])
@pytest.mark.parametrize("winners", [(True, False), (False, True), (False, False)])
def test_a_battle_that_ends_on_the_last_step_is_terminated(winners, steps):
    """Won if an ally survives and no enemy does; that nobody survives is no win."""
    _, _, step, _ = small()
    alive = jnp.repeat(jnp.array(winners), 3)
    state, _ = injected(unit_alive=alive, unit_health=45.0 * alive, step=jnp.int32(steps))
    _, timestep = step(KEY, state, jnp.full(3, smax.STOP))
    assert timestep.terminated and not timestep.truncated
    won = float(winners == (True, False))
    assert timestep.info["won"] == won and timestep.reward == won
    assert timestep.info["won"].dtype == bool


@pytest.mark.optimised
@pytest.mark.full
def test_nothing_is_won_while_it_lasts():
    _, timestep, _, _ = battles("smacv2_5_units")
    won = np.asarray(timestep.info["won"])
    bonus = np.asarray(timestep.reward) >= 1
    np.testing.assert_array_equal(won[played(timestep)], bonus[played(timestep)])
    assert not won[~np.asarray(timestep.terminated)].any()


@pytest.mark.optimised
@pytest.mark.sample(1)
@pytest.mark.parametrize("name", QUICK)
def test_state_is_bounded_and_each_agents_own(name):
    """Upstream's holds coordinates up to 32 and cooldowns that fall below zero without end."""
    env, timestep, _, coldest = battles(name)
    state = np.asarray(timestep.state)
    assert state.shape[-1] == env.state_size
    assert np.abs(state).max() <= 1
    assert coldest < -10
    living = np.asarray(timestep.active).all(-1)
    assert (state[living][:, 0] != state[living][:, 1]).any(-1).all()


def test_upstreams_state_on_request():
    env = smax.make("smax_3m", state="upstream")
    obs, _ = env.game.reset(KEY)
    _, timestep = jax.jit(env.reset)(KEY)
    assert timestep.state.shape == (3, env.state_size) == (3, env.rules.state_size)
    for row in timestep.state:
        np.testing.assert_array_equal(row, obs["world_state"])


def test_state_tells_the_time_left():
    early, late = (injected(step=jnp.int32(t))[1].state for t in (0, 45))
    changed = np.unique(np.nonzero(np.asarray(early != late))[1])
    assert len(changed) == 1
    np.testing.assert_allclose(early[:, changed], 1)
    np.testing.assert_allclose(late[:, changed], 1 - 45 / 60, rtol=1e-6)


def test_only_damage_is_rewarded():
    """Upstream pays for an enemy's healing as for its wounds."""
    env, reset, _, _ = small()
    battle = reset(KEY)[0].upstream.state
    units = env._units(battle)
    full, hurt = battle.unit_health, battle.unit_health.at[4].add(-9.0)
    paid = env.game.compute_reward(battle, hurt, full)["ally_0"]
    np.testing.assert_allclose(paid, 9 / 45 / 3, rtol=1e-6)
    assert env._damage(hurt, full, units) == 0
    np.testing.assert_allclose(env._damage(full, hurt, units), 9 / 45 / 3, rtol=1e-6)
    assert env._damage(full, full.at[0].add(-9.0), units) == 0


@pytest.mark.optimised
@pytest.mark.sample(1)
@pytest.mark.parametrize("name", QUICK)
def test_the_dead_see_nothing_and_may_only_stop(name):
    _, timestep, _, _ = battles(name)
    dead = ~np.asarray(timestep.active)
    assert dead.any()
    assert not timestep.obs[dead].any()
    stop = np.arange(timestep.legal.shape[-1]) == smax.STOP
    np.testing.assert_array_equal(
        timestep.legal[dead], np.broadcast_to(stop, (dead.sum(), len(stop)))
    )


def test_an_illegal_attack_is_counted_and_fires_once_its_target_comes_into_range():
    """As upstream: an ally and an enemy marine are left, 5.5 apart, and the enemy walks up."""
    alive = jnp.array([1, 0, 0, 1, 0, 0], bool)
    place = jnp.array([[14.0, 16.0], [1, 1], [1, 2], [19.5, 16.0], [31, 1], [31, 2]])
    state, timestep = injected(unit_alive=alive, unit_health=45.0 * alive, unit_positions=place)
    assert not timestep.legal[0, smax.STOP + 1 :].any()
    after, timestep = small()[2](KEY, state, jnp.array([smax.STOP + 1, smax.STOP, smax.STOP]))
    assert timestep.info["illegal"] == 1
    np.testing.assert_allclose(after.upstream.state.unit_health[3], 45 - 9)
    np.testing.assert_allclose(timestep.reward, 9 / 45 / 3, rtol=1e-6)


def test_illegal_actions_far_away_do_nothing_and_are_counted():
    _, reset, step, _ = small()
    state, timestep = reset(KEY)
    assert not timestep.legal[:, smax.STOP + 1 :].any()
    idle, quiet = step(KEY, state, jnp.full(3, smax.STOP))
    _, shot = step(KEY, state, jnp.array([5, 6, smax.STOP]))
    assert (shot.info["illegal"], quiet.info["illegal"]) == (2, 0)
    assert shot.reward == quiet.reward == 0
    after, unknown = step(KEY, state, jnp.array([99, -1, 8]))
    assert unknown.info["illegal"] == 3
    np.testing.assert_array_equal(unknown.obs, quiet.obs)
    jax.tree.map(np.testing.assert_array_equal, after.legal, idle.legal)
    alive = jnp.array([False, True, True, True, True, True])
    state, _ = injected(unit_alive=alive, unit_health=45.0 * alive)
    assert step(KEY, state, jnp.array([0, 0, 5]))[1].info["illegal"] == 1


@pytest.mark.parametrize(
    "name, sizes", [("3m", (75, 8)), ("2s3z", (127, 10)), ("3s5z", (205, 13)),
                    ("3s5z_vs_3s6z", (218, 14))]
)  # fmt: skip
def test_sizes(name, sizes):
    env = smax.make(f"smax_{name}")
    assert (env.observation_size, env.action_space.n) == sizes
    with_ids = envs.make(f"smax_{name}")
    n = env.num_agents
    assert with_ids.observation_size == env.observation_size + n
    assert with_ids.state_size == env.state_size + n
    _, timestep = jax.eval_shape(with_ids.reset, KEY)
    assert timestep.obs.shape == (n, with_ids.observation_size)
    assert timestep.state.shape == (n, with_ids.state_size)


def test_every_map_of_the_installed_package():
    scenarios = upstream("jaxmarl.environments.smax.smax_env").MAP_NAME_TO_SCENARIO
    assert set(smax.NAMES) == {f"smax_{name}" for name in scenarios}
    for name in smax.NAMES:
        env = smax.make(name)
        assert env.max_steps == smax.TIME_LIMITS.get(name[5:], 100)
        _, timestep = jax.eval_shape(env.reset, KEY)
        assert timestep.obs.shape == (scenarios[name[5:]].num_allies, env.observation_size)


def test_maps_registered_upstream_are_known():
    registry = upstream("jaxmarl.environments.smax.smax_env")
    types = jnp.array([3, 3, 2], jnp.uint8)
    registry.register_scenario("2z_vs_1s", registry.Scenario(types, 2, 1, False, False))
    try:
        env = envs.make("smax_2z_vs_1s", max_steps=7)
        assert (env.num_agents, env.num_enemies, env.max_steps) == (2, 1, 7)
    finally:
        del registry.MAP_NAME_TO_SCENARIO["2z_vs_1s"]


def test_units_are_drawn_anew_each_episode():
    env = smax.make("smax_smacv2_5_units")
    keys = jax.random.split(KEY, 20)
    types = jax.jit(jax.vmap(lambda key: env.reset(key)[0].upstream.state.unit_types))(keys)
    assert set(np.unique(types)) == set(range(6))


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("smax_4m", {}, ("env=smax_4m", "smax_3m", "smax_smacv2_20_units")),
        ("smax_3m", {"state": "raw"}, ("env.state=raw", "agent", "upstream")),
        ("smax_3m", {"max_steps": 2.5}, ("env.max_steps=2.5", "whole")),
        ("smax_3m", {"walls_cause_death": "no"}, ("env.walls_cause_death=no", "true or false")),
    ],
)
def test_refusals(name, options, words):
    with pytest.raises(ConfigError) as refusal:
        envs.make(name, **options)
    message = str(refusal.value)
    assert message[-1] in ".?" and ". " not in message and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.long
def test_trains_and_keeps_memory_through_deaths():
    """Recurrent states start anew where an episode does, and nowhere else."""
    team, progress = train(
        "env=smax_3m", "env.max_steps=30", "algo.rollout_length=40", "total_steps=320"
    )
    state = jax.tree.map(lambda x: x[0], progress.state)

    @functools.partial(jax.jit, compiler_options=HURRY)
    def collect(state):
        weights = [
            role.scheme.weights(learner.banks)
            for role, learner in ((team.actor, state.actor), (team.critic, state.critic))
        ]
        return rollout.unroll(KEY, team, *weights, state.runner, length=40, chunk=10)[1:]

    trajectory, episodes = collect(state)
    steps = jax.tree.map(rollout.merge_time, trajectory.transitions)
    ended = np.asarray(steps.terminated | steps.truncated)
    np.testing.assert_array_equal(steps.first[1:], ended[:-1])
    died = np.asarray(steps.active[:-1] & ~steps.active[1:]).any(-1)
    assert (died & ~ended[:-1]).any() and ended.any()
    assert 0 <= episodes.wins <= episodes.count == ended.sum()
