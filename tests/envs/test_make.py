"""Environments by name: what is refused, and in which words; the wrappers that `make` adds."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lorasa_jax import envs
from lorasa_jax.envs import mamujoco
from lorasa_jax.envs.mamujoco.mjx import MjxStepper
from lorasa_jax.envs.mamujoco.native import NativeStepper
from lorasa_jax.envs.mamujoco.partitions import Partition, check, partition
from lorasa_jax.envs.mamujoco.physics import load_model
from lorasa_jax.envs.mamujoco.robots import robot
from lorasa_jax.errors import ConfigError

KEY = jax.random.key(0)


@pytest.mark.upstream
@pytest.mark.parametrize("name", ["reacher_2x1", "smac_MMM2", "smax_3m", "jaxmarl_MPE_simple_v3",
                                  "probe_action"])  # fmt: skip
def test_every_family_says_through_all_wrappers_that_it_does_not_truncate_early(name):
    for seen in ({"standardise": True}, {"normalise": "running"}):
        assert envs.make(name, **seen).truncates_early is False


def assert_one_sentence(refusal):
    message = str(refusal.value)
    assert message[-1] in ".?" and ". " not in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    "name, options, accepted",
    [
        ("ant_5x2", {}, envs.names()),
        ("", {}, envs.names()),
        ("humanoid_9-8", {}, envs.names()),
        ("manyagent_ant_0x2", {}, envs.names()),
        ("manyagent_walker_2x2", {}, envs.names()),
        ("manyagent_ant_1x1", {}, ("manyagent_ant_1x1", "1 segments", "2 to 50")),
        ("manyagent_ant_3x17", {}, ("51 segments", "2 to 50")),
        ("manyagent_swimmer_1x1", {}, ("1 segments", "2 to 50")),
        ("manyagent_swimmer_51x1", {}, ("51 segments", "2 to 50")),
        ("ant_4x2", {"motor": "native"}, ("env.motor", *envs.options("ant_4x2"))),
        ("ant_4x2", {"engine": "bullet"}, ("env.engine=bullet", "auto", "native", "mjx", "warp")),
        ("ant_4x2", {"profile": "v5"}, ("env.profile=v5", "lorasa", "gymnasium")),
        ("ant_4x2", {"action_order": "sorted"}, ("env.action_order=sorted", "node", "flat")),
        ("ant_4x2", {"full_observation": "all"}, ("env.full_observation=all", "true", "false")),
        ("ant_4x2", {"k": -1}, ("env.k=-1", "0 to 2")),
        ("ant_4x2", {"k": 3}, ("env.k=3", "0 to 2")),
        ("halfcheetah_6x1", {"k": 6}, ("env.k=6", "0 to 5")),
        ("hopper_3x1", {"k": 3}, ("env.k=3", "0 to 2")),
        ("ant_4x2", {"k": 1, "full_observation": True}, ("env.k=1", "full_observation=false")),
        ("humanoid_9_8", {"k": 9}, ("env.k=9", "full_observation=false")),
        (
            "humanoid_9_8", {"global_categories": ["qpos"]},
            ("env.global_categories", "full_observation=false"),
        ),
        ("ant_4x2", {"k": 1.0}, ("env.k=1.0", "whole number")),
        ("ant_4x2", {"k": "1"}, ("env.k=1", "whole number")),
        ("ant_4x2", {"k": True}, ("env.k=True", "whole number")),
        ("ant_4x2", {"global_categories": ["xpos"]}, ("xpos", "list of some of", "qpos, qvel")),
        ("ant_4x2", {"global_categories": "qpos"}, ("env.global_categories=qpos", "qpos, qvel")),
        ("ant_4x2", {"global_categories": 3}, ("env.global_categories=3", "qpos, qvel")),
        ("probe_memory", {"engine": "native"}, ("env.engine", "probe_memory", "none")),
    ],
)  # fmt: skip
def test_refusals_name_what_is_accepted(name, options, accepted):
    with pytest.raises(ConfigError) as refusal:
        envs.make(name, **{"engine": "native", **options} if "ant" in name else options)
    message = assert_one_sentence(refusal)
    for word in accepted:
        assert word in message


def test_unknown_names_have_no_options():
    with pytest.raises(ConfigError, match="env=walker is not known; did you mean walker2d_6x1"):
        envs.options("walker")


@pytest.mark.parametrize("engine, package", [("native", "mujoco"), ("mjx", "mujoco-mjx")])
def test_an_engine_that_is_not_installed_is_refused(monkeypatch, engine, package):
    monkeypatch.setattr(mamujoco.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs the package {package}, which is not installed"):
        envs.make("ant_4x2", engine=engine)


@pytest.mark.parametrize(
    "found, backend, words",
    [
        (None, "gpu", "engine=warp needs the package mujoco-mjx[warp]"),
        (object(), "cpu", "engine=warp needs a CUDA device"),
        (object(), "tpu", "engine=warp needs a CUDA device"),
    ],
)
def test_warp_needs_its_package_and_cuda(monkeypatch, found, backend, words):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: found if name == "warp" else real(name, *rest),
    )
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with pytest.raises(ConfigError) as refusal:
        envs.make("ant_4x2", engine="warp")
    assert words in assert_one_sentence(refusal)


@pytest.mark.parametrize(
    "backend, stepper", [("cpu", NativeStepper), ("gpu", NativeStepper), ("tpu", MjxStepper)]
)
def test_auto_engine(monkeypatch, backend, stepper):
    """As was measured; `auto` is the default."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert type(envs.make("ant_4x2").stepper) is stepper


CHEETAH = robot("halfcheetah", "lorasa").joints


@pytest.mark.parametrize(
    "agents, words",
    [
        ((("bfoot", "bshin"), ("bthigh", "ffoot", "fshin")), ("fthigh", "to no agent")),
        ((CHEETAH, ("bfoot",)), ("bfoot", "assigned twice")),
        (((*CHEETAH, "bshin"),), ("bshin", "assigned twice")),
        ((("hip_1",), CHEETAH), ("hip_1 is no joint of halfcheetah", *CHEETAH)),
        ((), ("bfoot", "to no agent")),
        ((CHEETAH, ()), ("an agent of halfcheetah drives no joint",)),
    ],
)
def test_partitions_give_every_joint_to_one_agent(agents, words):
    with pytest.raises(ConfigError) as refusal:
        check(Partition("halfcheetah", agents), CHEETAH)
    message = assert_one_sentence(refusal)
    for word in words:
        assert word in message


@pytest.mark.parametrize("name", mamujoco.NAMES)
def test_registered_partitions_are_sound(name):
    found = partition(name)
    check(found, robot(found.robot, "lorasa").joints)


@pytest.mark.parametrize(
    "name", ["ant", "halfcheetah", "walker2d", "hopper", "swimmer", "reacher", "humanoid"]
)
@pytest.mark.parametrize("profile", ["lorasa", "gymnasium"])
def test_another_model_file_is_refused(name, profile):
    other = replace(robot(name, profile), sha256="00000000")
    with pytest.raises(ConfigError) as refusal:
        load_model(other)
    message = assert_one_sentence(refusal)
    assert f"{other.xml} in the installed gymnasium is not the file" in message


def test_an_edited_model_file_is_refused(monkeypatch):
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: real(path) + b"\n")
    with pytest.raises(
        ConfigError, match=r"hopper\.xml in the installed gymnasium is not the file"
    ):
        envs.make("hopper_3x1", engine="native")


@pytest.mark.parametrize("name", ["humanoid_9|8", "humanoid_standup_9|8"])
def test_the_fields_spelling_is_understood(name):
    ours = name.replace("|", "_")
    assert envs.canonical(name) == ours and envs.options(ours) == envs.options("ant_4x2")
    one, other = envs.make(name, engine="native"), envs.make(ours, engine="native")
    assert one.partition is other.partition and name not in envs.names()


@pytest.mark.parametrize(
    "name, agents, joints",
    [
        ("manyagent_ant_2x1", 2, 4),
        ("manyagent_ant_5x2", 5, 8),
        ("manyagent_ant_25x2", 25, 8),
        ("manyagent_swimmer_4x3", 4, 3),
        ("manyagent_swimmer_50x1", 50, 1),
    ],
)
def test_any_number_of_segments(name, agents, joints):
    env = envs.make(name, engine="native")
    assert (env.num_agents, env.action_space) == (agents, envs.Box(joints))
    assert env.model.nu == agents * joints


@pytest.mark.parametrize("name", ["manyagent_ant_1x2", "manyagent_swimmer_1x3"])
def test_a_single_agent_can_have_all_segments(name):
    assert envs.make(name, engine="native").num_agents == 1


def test_names_are_unique_and_can_be_made():
    assert len(set(envs.names())) == len(envs.names())
    assert {"ant_4x2", "probe_memory", "specialisation_2"} <= set(envs.names())
    for name in mamujoco.NAMES:
        for profile in ("lorasa", "gymnasium"):
            envs.make(name, engine="native", profile=profile)


def test_options_are_a_copy():
    envs.options("ant_4x2")["engine"] = "bullet"
    assert envs.options("ant_4x2") == {
        "engine": "auto", "profile": "lorasa", "action_order": "node", "k": None,
        "global_categories": None, "full_observation": None,
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
