"""Environments by name: what is refused, and in which words; the wrappers that `make` adds."""

import jax
import numpy as np
import pytest

from lorasa_jax import envs
from lorasa_jax.envs import mamujoco
from lorasa_jax.envs.mamujoco.mjx import MjxStepper
from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.errors import ConfigError

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "name, options, accepted",
    [
        ("ant_5x2", {}, envs.names()),
        ("ant_4x2", {"motor": "native"}, ("env.motor", *mamujoco.OPTIONS)),
        ("ant_4x2", {"engine": "bullet"}, ("env.engine=bullet", "auto", "native", "mjx")),
        ("ant_4x2", {"profile": "v5"}, ("env.profile=v5", "lorasa")),
        ("ant_4x2", {"action_order": "sorted"}, ("env.action_order=sorted", "node", "flat")),
        ("probe_memory", {"engine": "native"}, ("env.engine", "probe_memory", "none")),
    ],
)
def test_refusals_name_what_is_accepted(name, options, accepted):
    with pytest.raises(ConfigError) as refusal:
        envs.make(name, **options)
    message = str(refusal.value)
    assert message.endswith(".") and ". " not in message and "\n" not in message
    for word in accepted:
        assert word in message


def test_unknown_names_have_no_options():
    with pytest.raises(ConfigError, match="env=walker is not known; choose one of ant_4x2"):
        envs.options("walker")


@pytest.mark.parametrize("engine, package", [("native", "mujoco"), ("mjx", "mujoco-mjx")])
def test_an_engine_that_is_not_installed_is_refused(monkeypatch, engine, package):
    monkeypatch.setattr(mamujoco.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {package}, which is not installed"):
        envs.make("ant_4x2", engine=engine)


@pytest.mark.parametrize(
    "backend, stepper", [("cpu", NativeStepper), ("gpu", MjxStepper), ("tpu", MjxStepper)]
)
def test_auto_engine(monkeypatch, backend, stepper):
    """The C engine on CPU, MJX on accelerators; `auto` is the default."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert isinstance(envs.make("ant_4x2").stepper, stepper)


def test_names_are_unique_and_can_be_made():
    assert len(set(envs.names())) == len(envs.names())
    assert {"ant_4x2", "probe_memory", "specialisation_2"} <= set(envs.names())


def test_options_are_a_copy():
    envs.options("ant_4x2")["engine"] = "bullet"
    assert envs.options("ant_4x2") == {
        "engine": "auto", "profile": "lorasa", "action_order": "node"
    }  # fmt: skip
    assert envs.options("probe_memory") == {}


@pytest.mark.parametrize("agent_ids, sizes", [(True, (35, 115)), (False, (31, 111))])
def test_standardise(agent_ids, sizes):
    """Each vector by itself, ids included: mean 0, standard deviation 1, order kept."""
    options = {"engine": "native", "agent_ids": agent_ids}
    plain = envs.make("ant_4x2", **options)
    env = envs.make("ant_4x2", standardise=True, **options)
    assert (env.observation_size, env.state_size) == sizes
    state, timestep = env.reset(KEY)
    _, expected = plain.reset(KEY)
    actions = np.full((4, 2), 0.3)
    pairs = [(timestep, expected), (env.step(KEY, state, actions)[1],
                                    plain.step(KEY, state, actions)[1])]  # fmt: skip
    for ours, raw in pairs:
        for x, y in ((ours.obs, raw.obs), (ours.state, raw.state)):
            x, y = np.asarray(x, float), np.asarray(y, float)
            np.testing.assert_allclose(x.mean(-1), 0, atol=1e-6)
            np.testing.assert_allclose(x.std(-1), 1, rtol=1e-5)
            wanted = (y - y.mean(-1, keepdims=True)) / y.std(-1, keepdims=True)
            np.testing.assert_allclose(x, wanted, atol=1e-5)
        np.testing.assert_array_equal(ours.reward, raw.reward)


def test_standardising_a_constant_vector_gives_zeros():
    _, timestep = envs.make("probe_constant", standardise=True).reset(KEY)
    np.testing.assert_array_equal(timestep.obs, np.zeros((1, 2)))


def test_wrappers_pass_the_environment_through():
    env = envs.make("ant_4x2", engine="native", standardise=True)
    assert (env.num_agents, env.max_steps, env.action_space) == (4, 1000, envs.Box(2))
    with pytest.raises(AttributeError):
        _ = env.nothing_of_the_kind
