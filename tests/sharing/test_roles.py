"""Adapters keyed by agent, by types that the environment tells, and by cluster."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import envs
from lorasa_jax.envs import contract, games
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import mappo, team
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.training import phases, plan
from lorasa_jax.training.teams import build_teams

TINY = [
    "algo.num_envs=4", "algo.rollout_length=10", "algo.epochs=1", "network.hidden=4",
    "network.kind=ff", "network.depth=1", "sharing.rank=2", "eval_episodes=2", "total_steps=80",
]  # fmt: skip


class Typed:
    """specialisation_4 whose agents are of two types: the same ones, or drawn by the episode."""

    types = ("one", "other")

    def __init__(self, type_of=None):
        self.game = games.make("specialisation_4")
        if type_of is not None:
            self.type_of = type_of

    def __getattr__(self, name):
        if name == "game":
            raise AttributeError(name)
        return getattr(self.game, name)

    def reset(self, key):
        state, timestep = self.game.reset(key)
        return (state, jax.random.randint(key, (4,), 0, 2)), timestep

    def step(self, key, state, actions):
        inner, timestep = self.game.step(key, state[0], actions)
        return (inner, state[1]), timestep


class Drawn(Typed):
    def types_of(self, state):
        return state[1]


@pytest.fixture(autouse=True)
def registered():
    with contextlib.ExitStack() as forgotten:
        forgotten.enter_context(envs.REGISTRY.temporary())
        envs.register("same_types", lambda: Typed((1, 0, 1, 0)))
        envs.register("own_types", lambda: _of_four((2, 0, 3, 1)))
        envs.register("drawn_types", Drawn)
        yield


def _of_four(type_of):
    env = Typed(type_of)
    env.types = ("a", "b", "c", "d")
    return env


def load(*words):
    return configuration.load([*TINY, *words])


def test_agents_of_a_type_share_an_adapter():
    scheme = build_teams(load("env=same_types", "sharing.by=type"))[1].actor.scheme
    assert scheme.banks["adapters"].index == (0, 1, 0, 1)
    by_agent = build_teams(load("env=same_types"))[1].actor.scheme
    assert by_agent.banks["adapters"].index == (0, 1, 2, 3)


@pytest.mark.full
def test_types_of_their_own_are_agents_of_their_own_bit_for_bit():
    states = []
    for by in ("agent", "type"):
        config = load("env=own_types", f"sharing.by={by}")
        teams = build_teams(config)
        state = jax.jit(lambda p, c=config, t=teams: phases.switch(c, t, 1, p))(
            jax.jit(lambda c=config, t=teams: phases.begin(c, t[0]))()
        )
        one = jax.tree.map(lambda x: x[0], state.state)
        hp = config.algo_of(-1)
        states.append(jax.jit(lambda s, t=teams, h=hp: mappo.update(s, t[1], h)[0])(one).actor)
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.full
def test_each_step_is_taken_with_the_weights_of_its_type():
    """A GRU over five steps, with an episode's end in one of two environments, in a plain loop."""
    network = RecurrentNetwork({"mean": (2, 1.0, 0.0)}, {}, 4, "gru")
    keys = jax.random.split(jax.random.key(0), 3)
    trees = jax.vmap(lambda key: parameters(network, key, 3))(keys)
    x = jax.random.normal(keys[0], (5, 2, 4, 3))
    carry = jax.random.normal(keys[1], network.initial_carry(2, 4).shape)
    first = jnp.zeros((5, 2), bool).at[2, 1].set(True)
    before, after = jax.random.randint(keys[2], (2, 2, 4), 0, 3)
    types = jnp.broadcast_to(before, (5, 2, 4)).at[2:, 1].set(after[1])
    axes = jax.tree.map(lambda _: 0, trees)
    last, out = team.forward(network, (trees, axes), carry, x, first, agent_axis=2, types=types)
    apply = jax.jit(lambda own, *inputs: network.apply({"params": own}, *inputs))
    for env, agent in np.ndindex(2, 4):
        state = carry[env, agent]
        for step in range(5):
            own = jax.tree.map(lambda leaf, t=types[step, env, agent]: leaf[t], trees)
            state, result = apply(own, state, x[step, env, agent][None], first[step, env][None])
            np.testing.assert_allclose(out["mean"][step, env, agent], result["mean"][0], atol=1e-5)
        np.testing.assert_allclose(last[env, agent], state, atol=1e-5)


def test_redrawn_types_fit_the_whole_plan():
    config = load("env=drawn_types", "sharing.by=type")
    teams = build_teams(config)
    plan.check(config, teams)
    adapters = teams[1].actor.scheme.banks["adapters"]
    assert adapters.index == (0, 1) and teams[1].actor.by_type


@pytest.mark.upstream
@pytest.mark.parametrize(
    ("name", "known"),
    [("smax_2s3z", {"stalker", "zealot"}), ("smac_MMM2", {"marine", "marauder", "medivac"})],
)
def test_maps_tell_their_units_types(name, known):
    env = envs.make(name)
    assert {env.types[n].lower() for n in env.type_of} == known
    contract.check(env, name)


@pytest.mark.upstream
@pytest.mark.full
def test_redrawn_teams_tell_types_with_the_episode():
    env = envs.make("smax_smacv2_5_units")
    contract.check(env, "smax_smacv2_5_units")
    assert not hasattr(env, "type_of")
    states, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 8))
    types = np.asarray(jax.vmap(env.types_of)(states))
    assert types.shape == (8, 5) and len(np.unique(types, axis=0)) > 1
    config = load("env=smax_smacv2_5_units", "sharing.by=type")
    plan.check(config, build_teams(config))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["env=specialisation_2", "sharing.by=type"], "env=specialisation_2 tells none"),
        (["env=specialisation_2", "sharing.by=cluster"], "sharing=seps_lora has"),
        (["env=drawn_types", "sharing.by=type", "algo=a2po"], "sharing=ps_lora and algo=mappo"),
        (["env=specialisation_2", "sharing.by=role"], "choose one of agent, type, cluster"),
    ],
)
def test_refused_in_one_sentence(words, told):
    with pytest.raises(ConfigError) as refusal:
        build_teams(load(*words))
    message = str(refusal.value)
    assert told in message
    assert message[-1] in ".?" and ". " not in message and "\n" not in message


def test_adapters_of_clusters():
    config = load("env=specialisation_4", "sharing=seps_lora", "sharing.by=cluster")
    scheme = build_teams(config, (0, 1, 1, 0))[1].actor.scheme
    assert scheme.banks["adapters"].index == (0, 1, 1, 0) == scheme.banks["net"].index


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"types": ["one"]}, "must be a tuple of names"),
        ({"type_of": (0, 1, 2, 0)}, "must be a number from 0 to 1"),
        ({"type_of": (0, 1)}, "for each of the 4 agents"),
        ({"types_of": lambda state: jnp.zeros(4)}, "must be an integer of shape"),
        ({}, "add one of them"),
    ],
)
def test_the_contract_checks_types(attributes, told):
    env = Typed()
    for name, value in attributes.items():
        setattr(env, name, value)
    with pytest.raises(ConfigError, match=told):
        contract.check(env, "typed")
