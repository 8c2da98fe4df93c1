"""What can be known to fail before step 0 fails there, in one sentence that names the part."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import pytest

from lorasa_jax import config, envs, sharing
from lorasa_jax.envs import contract, games
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms, mappo
from lorasa_jax.registry import Phase
from lorasa_jax.training import plan
from lorasa_jax.training.teams import build_teams

WORDS = ["algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=2", "network.hidden=4",
         "total_steps=80", "algo.epochs=1", "eval_episodes=2"]  # fmt: skip


class Changed:
    """A game whose time steps (or states) are changed after reset and step."""

    def __init__(self, change, of="specialisation_2", only=("reset", "step")):
        self.env, self.change, self.only = games.make(of), change, only

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, key):
        made = self.env.reset(key)
        return self.change(*made) if "reset" in self.only else made

    def step(self, key, state, actions):
        made = self.env.step(key, state, actions)
        return self.change(*made) if "step" in self.only else made


def field(name, change, **more):
    """An environment one of whose fields is changed."""
    return Changed(lambda state, t: (state, t._replace(**{name: change(getattr(t, name))})), **more)


BROKEN = {
    "reward after step is float32 of shape [1] and must be a float without axes": field(
        "reward", lambda x: x[None], only=("step",)
    ),
    "reward after reset is float32 of shape [2]": field("reward", lambda x: jnp.stack([x, x])),
    "terminated after reset is float32 without axes and must be a boolean": field(
        "terminated", lambda x: x.astype(float)
    ),
    "obs after reset is float32 of shape [2, 3, 3]": field("obs", lambda x: jnp.zeros((2, 3, 3))),
    "timestep.state after reset is float32 of shape [2, 9]": field(
        "state", lambda x: jnp.zeros((2, 9))
    ),
    "legal after step is int32": field("legal", lambda x: x.astype(jnp.int32), only=("step",)),
    "info['won'] after reset is bool of shape [2]": field(
        "info", lambda x: {**x, "won": jnp.zeros(2, bool)}
    ),
    "info after reset must be a dictionary": field("info", lambda x: ()),
    "after reset and float32 of shape [3] after step": Changed(
        lambda state, t: (state._replace(steps=jnp.zeros(3)), t), only=("step",)
    ),
    "other parts than that after reset": Changed(
        lambda state, t: ((state, state), t), only=("step",)
    ),
    "step fails (ZeroDivisionError": Changed(lambda state, t: 1 / 0, only=("step",)),
    "reset must return (state, envs.TimeStep)": Changed(lambda state, t: t, only=("reset",)),
}  # fmt: skip


@pytest.mark.parametrize("told", BROKEN)
def test_a_broken_environment_is_told(told):
    with pytest.raises(ConfigError) as refusal:
        contract.check(BROKEN[told], "mine")
    message = str(refusal.value)
    assert told in message and message.startswith("env=mine: ")
    assert "\n" not in message and message[-1] == "."


def test_an_agent_without_anything_to_do_is_told():
    env = field("legal", lambda x: x.at[1].set(False))
    contract.check(env, "mine")
    with pytest.raises(ConfigError, match="agent 1 is active and has no legal action"):
        contract.check_legal(env, "mine")
    contract.check_legal(games.make("specialisation_2"), "mine")


@pytest.mark.parametrize("name", ["probe_constant", "specialisation_4", "reacher_2x1", "smac_2s3z"])
def test_the_packages_own_keep_the_contract(name):
    contract.check(envs.make(name), name)


@pytest.fixture
def forgotten():
    with sharing.REGISTRY.temporary(), algorithms.REGISTRY.temporary():
        yield


def load(*words):
    return config.load(["env=specialisation_2", *WORDS, *words])


def checked(*words):
    settings = load(*words)
    plan.check(settings, build_teams(settings))


def test_sound_plans_pass_quickly():
    checked("sharing=ps_lora")
    began = time.perf_counter()
    checked("sharing=ps_lora")
    assert time.perf_counter() - began < 30  # two seconds on a quiet machine


def broken_scheme(given, change):
    shared = sharing.ps(given.num_agents)
    return sharing.Sharing((change(shared),), (shared,))


SCHEMES = {
    "weights of phase `train`": lambda s: s._replace(combine=lambda parts: 1 / 0),
    "update of phase `train`": lambda s: s._replace(
        combine=lambda parts: (parts["net"][0], {"linear_1": 0})
    ),
    "init of phase `train`": lambda s: s._replace(init=lambda key, fresh: {"other": fresh(key)}),
}


@pytest.mark.parametrize("told", SCHEMES)
def test_a_scheme_that_does_not_fit_is_told(told, forgotten):
    sharing.register("mine", lambda given: broken_scheme(given, SCHEMES[told]))
    with pytest.raises(ConfigError) as refusal:
        checked("sharing=mine")
    assert "sharing=mine" in str(refusal.value) and told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def three_phases(given, last=None):
    shared = sharing.ps(given.num_agents)
    lora = sharing.adapted(shared, sharing.LoraSpec(2))
    return sharing.Sharing((shared, lora, last or lora), (shared,) * 3)


PHASES = (Phase("begin", "ps", until=0.2), Phase("middle", until=0.6), Phase("end"))


def test_any_number_of_phases(forgotten):
    sharing.register("three", three_phases_kept, phases=PHASES)
    settings = load("sharing=three")
    assert settings.phase_names == ("begin", "middle", "end")
    assert settings.switches == (16, 48) and settings.phase_ends == (2, 6, 10)
    assert load("sharing=three", "switch_at=[8,16]").phase_ends == (1, 2, 10)
    assert load("sharing=three", "init_from=there@24").switches == (24, 48)
    with pytest.raises(ConfigError, match="must be 2 steps"):
        load("sharing=three", "switch_at=8")
    with pytest.raises(ConfigError, match="must lie between an update after 16"):
        load("sharing=three", "switch_at=[16,16]")
    plan.check(settings, build_teams(settings))


def three_phases_kept(given):
    """Adapters that go on in a third phase from what they were."""
    made = three_phases(given)
    lora = made.actor_phases[1]
    last = lora._replace(adopt=lambda key, old: old)
    return made._replace(actor_phases=(*made.actor_phases[:2], last))


def test_a_scheme_that_does_not_fit_the_third_phase_is_refused_at_once(forgotten):
    def build(given):
        made = three_phases(given)
        last = made.actor_phases[0]._replace(adopt=lambda key, old: {"net": old["nets"]})
        return made._replace(actor_phases=(*made.actor_phases[:2], last))

    sharing.register("three", build, phases=PHASES)
    with pytest.raises(ConfigError, match="adopt of phase `end`"):
        checked("sharing=three")
    sharing.register("three", three_phases, phases=PHASES[1:])
    with pytest.raises(ConfigError, match="builds schemes for 3 phases, and its row names 2"):
        checked("sharing=three", "switch_at=8")


def test_an_algorithm_that_changes_the_state_is_told(forgotten):
    def update(state, team, hp):
        after, report, episodes = mappo.update(state, team, hp)
        return after._replace(runner=after.runner._replace(first=jnp.zeros(3))), report, episodes

    algorithms.register("mine", update, like="mappo")
    with pytest.raises(ConfigError, match="returns another state in phase `train`"):
        checked("sharing=ps", "algo=mine")


def test_hyperparameters_are_of_one_kind():
    """What a configuration holds is what an update gets."""
    settings = load("sharing=ps")
    assert settings.algo_of(-1) is settings.algo
    assert dataclasses.is_dataclass(settings.algo) and jax.tree.leaves(settings.algo) != []
