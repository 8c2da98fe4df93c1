"""Environments and ways of sharing from outside the package."""

import contextlib
import dataclasses
import json
import subprocess
import sys

import jax
import pytest
from omegaconf import OmegaConf

from lorasa_jax import config, envs, sharing
from lorasa_jax.envs import games
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms, mappo
from lorasa_jax.training import run_folder
from lorasa_jax.training.teams import build_teams


def game(agents=2):
    return games.make(f"specialisation_{agents}")


@pytest.fixture
def own():
    """An environment and a way of sharing, forgotten afterwards."""
    with contextlib.ExitStack() as forgotten:
        for registry in (envs.REGISTRY, sharing.REGISTRY, algorithms.REGISTRY):
            forgotten.enter_context(registry.temporary())
        envs.register("own_game", game, {"agents": 2})
        sharing.register("own_lora", sharing.REGISTRY.row("ps_lora").make, like="ps_lora")
        yield


def test_an_environment_is_known_like_any_other(own):
    assert envs.make("own_game", agents=4).num_agents == 4
    assert envs.canonical("own_game") == "own_game" and "own_game" in envs.names()
    settings = config.load(["env=own_game", "env.agents=4"])
    assert settings.env == {
        "name": "own_game", "agent_ids": True, "standardise": False, "normalise": "none",
        "agents": 4,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"did you mean env\.agents"):
        config.load(["env=own_game", "env.agent=4"])
    with pytest.raises(ConfigError, match="its options are: agents"):
        envs.make("own_game", size=4)


def test_a_way_of_sharing_takes_phases_keys_and_numbers_of_its_model(own):
    words = ["env=specialisation_2", "total_steps=8000"]
    ours = config.load([*words, "sharing=own_lora", "sharing.rank=2"])
    theirs = config.load([*words, "sharing=ps_lora", "sharing.rank=2"])
    assert {**ours.sharing, "name": ""} == {**theirs.sharing, "name": ""}
    assert (ours.algo, ours.pretrain, ours.switch_at, ours.phase_names) == (
        theirs.algo, theirs.pretrain, theirs.switch_at, theirs.phase_names,
    )  # fmt: skip
    banks = [team.actor.scheme.banks for team in build_teams(ours)]
    assert [set(names) for names in banks] == [{"net"}, {"net", "adapters"}]


def test_a_way_of_sharing_with_one_phase(own):
    sharing.register("own_ps", sharing.REGISTRY.row("ps").make, like="ps")
    assert config.load(["sharing=own_ps"]).switch_at is None
    with pytest.raises(ConfigError, match="not a key of sharing=own_ps"):
        config.load(["sharing=own_ps", "sharing.rank=2"])


def test_a_way_of_sharing_has_keys_of_its_own(own):
    def build(given):
        assert set(given.options) == {"teams"}
        index = tuple(agent % given.options["teams"] for agent in range(given.num_agents))
        return sharing.Sharing((sharing.grouped(index),), (sharing.ps(given.num_agents),))

    sharing.register("teams", build, like="ps", options={"teams": 2})
    words = ["env=specialisation_4", "sharing=teams"]
    for given, index in (([], (0, 1, 0, 1)), (["sharing.teams=4"], (0, 1, 2, 3))):
        settings = config.load([*words, *given])
        (team,) = build_teams(settings)
        assert team.actor.scheme.banks["net"].index == index
    assert config.load(words).out != settings.out
    with pytest.raises(ConfigError, match=r"did you mean sharing\.teams"):
        config.load([*words, "sharing.team=3"])
    raw = settings.to_dict()
    del raw["sharing"]["teams"]  # a run from before the key
    (team,) = build_teams(config.resolve(OmegaConf.create(raw)))
    assert team.actor.scheme.banks["net"].index == (0, 1, 0, 1)
    sharing.register("clipped", sharing.REGISTRY.row("ps").make, like="ps", options={"clip": None})
    assert config.load(["sharing=clipped"]).sharing["clip"] is None  # not the paper's


@pytest.mark.parametrize("key", ["rank", "name", "clusters", "a-b", "defaults"])
def test_keys_that_would_be_mistaken_are_refused(own, key):
    with pytest.raises(ConfigError, match="cannot be a key of your way of sharing"):
        sharing.register("teams", sharing.REGISTRY.row("ps").make, like="ps", options={key: 1})


def narrower(state, team, hp, *, by, off=False, late=0):
    return mappo.update(state, team, hp if off else hp.replace(clip=hp.clip / by))


def test_an_algorithm_takes_keys_and_numbers_of_its_model(own):
    algorithms.register(
        "narrower", narrower, like="mappo", options={"by": 2.0, "off": False, "late": 0}
    )
    words = ["env=specialisation_2", "total_steps=8000", "sharing=ps"]
    ours = config.load([*words, "algo=narrower", "algo.by=4", "algo.minibatches=2"])
    theirs = config.load([*words, "algo=mappo", "algo.minibatches=2"])
    added = {"name": "narrower", "by": 4.0, "off": False, "late": 0}
    assert dataclasses.asdict(ours.algo) == {**dataclasses.asdict(theirs.algo), **added}
    raw = OmegaConf.create(ours.to_dict())
    del raw.algo.late  # a run from before the key
    assert config.resolve(raw).algo == ours.algo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mappo, "update", lambda state, team, hp: hp.clip)
        assert algorithms.update_of(ours.algo)(None, None, ours.algo) == ours.algo.clip / 4
    assert config.load([*words, "algo=narrower"]).out != ours.out
    sequential = config.load(["env=ant_4x2", "algo=a2po"]).algo
    algorithms.register("narrower", narrower, like="a2po", options={"by": 2.0})
    like = config.load(["env=ant_4x2", "algo=narrower"]).algo
    assert (like.epochs, like.loop, like.trace) == (
        sequential.epochs, sequential.loop, sequential.trace,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"did you mean algo\.by"):
        config.load(["env=ant_4x2", "algo=narrower", "algo.b=3"])
    with pytest.raises(ConfigError, match=r"algo\.by=wide must be a finite number"):
        config.load(["env=ant_4x2", "algo=narrower", "algo.by=wide"])


@pytest.mark.parametrize(
    ("name", "like", "options", "told"),
    [
        ("mappo", "mappo", {}, "cannot be the name of your algorithm"),
        ("a-b", "mappo", {}, "cannot be the name of your algorithm"),
        ("own", "ppo", {}, "like=ppo is not known; choose one of mappo"),
        ("own", "mappo", {"name": 1}, "cannot be a key of your algorithm"),
        ("own", "mappo", {"clip": 0.1}, "cannot be a key of your algorithm"),
        ("own", "mappo", {"lambda": 0.1}, "cannot be a key of your algorithm"),
        ("own", "mappo", {"far": float("inf")}, r"algo\.far=inf must be a number"),
        ("own", "mappo", {"sizes": [1]}, r"algo\.sizes=\[1\] must be a number"),
    ],
)
def test_algorithms_that_would_be_mistaken_are_refused(own, name, like, options, told):
    with pytest.raises(ConfigError, match=told):
        algorithms.register(name, narrower, like=like, options=options)


PLUGIN = """
from lorasa_jax import envs
from lorasa_jax.envs import games
from lorasa_jax.learn import algorithms, mappo
from lorasa_jax import sharing

def game(agents=2):
    return games.make(f"specialisation_{agents}")

envs.register("plugged_game", game, {"agents": 2})
build = sharing.REGISTRY.row("ps_lora").make
sharing.register("plugged_lora", build, like="ps_lora", options={"x": 1})

def narrower(state, team, hp, *, by):
    return mappo.update(state, team, hp.replace(clip=hp.clip / by))

algorithms.register("narrower", narrower, like="mappo", options={"by": 2.0})
"""


def command(module, *words, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"lorasa_jax.{module}", *words],
        cwd=cwd, capture_output=True, text=True, timeout=400,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.full
def test_commands_import_the_modules_that_they_are_given(tmp_path):
    (tmp_path / "plugged.py").write_text(PLUGIN)
    words = [
        "plugins=[plugged]", "env=plugged_game", "sharing=plugged_lora", "sharing.x=2",
        "algo=narrower",
        "algo.num_envs=4", "algo.rollout_length=20", "network.hidden=8", "total_steps=160",
    ]  # fmt: skip
    done = command("run", *words, "out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    unnamed = command("export", "out=run", "to=made", cwd=tmp_path)
    assert unnamed.returncode == 2 and "plugins=[plugged]" in unnamed.stderr
    given = "plugins=[plugged]"
    made = command("export", "out=run", "format=safetensors", "to=made", given, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    played = command("evaluate", "out=made", "episodes=2", given, cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert json.loads((tmp_path / "made" / "policy.json").read_text())["plugins"] == ["plugged"]
    away = command("evaluate", "out=../run", "episodes=2", given, cwd=tmp_path / "made")
    assert away.returncode == 2 and "plugins=plugged is not found" in away.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("plugins=[nowhere]", "plugins=nowhere is not found"),
        ("plugins=plugged", "must be a list of modules' names"),
        ("plugins=[a-b]", "must be a list of modules' names"),
        ("plugins=[broken]", r"plugins=broken cannot be imported \(ValueError: no\)"),
        ("plugins=[needy]", r"plugins=needy cannot be imported \(ModuleNotFoundError"),
    ],
)
def test_modules_that_cannot_be_imported_are_told(tmp_path, monkeypatch, given, told):
    (tmp_path / "broken.py").write_text("raise ValueError('no')")
    (tmp_path / "needy.py").write_text("import not_installed_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=told):
        config.load([given, "env=specialisation_2"])


def test_plugins_do_not_make_a_run_another(tmp_path, monkeypatch):
    (tmp_path / "quiet_module.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["env=specialisation_2", "sharing=ps"]
    plain, plugged = config.load(words), config.load([*words, "plugins=[quiet_module]"])
    assert plugged.plugins == ("quiet_module",) and plugged.out == plain.out
    assert plugged.command == "python -m lorasa_jax.run " + " ".join(words) + (
        " 'plugins=[quiet_module]'"
    )
    out = tmp_path / "run"
    for settings, there in ((plain, []), (plugged, ["quiet_module"]), (plain, ["quiet_module"])):
        run_folder.claim(out, settings)
        run_folder.rename_plugins(
            out, settings
        )  # what is given when a run goes on is what it names from then on
        assert OmegaConf.load(out / "config.yaml").plugins == there


def test_registering_again_replaces(own):
    envs.register("own_game", lambda: game(4))
    assert envs.make("own_game").num_agents == 4
    sharing.register("own_lora", sharing.REGISTRY.row("ps").make, like="ps")
    assert config.load(["sharing=own_lora"]).switch_at is None


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ant_4x2", {}, "exists already"),
        ("manyagent_ant_2x3", {}, "exists already"),
        ("own-game", {}, "cannot be the name"),
        ("own_game", {"agent_ids": True}, "cannot be a key"),
        ("own_game", {"name": "x"}, "cannot be a key"),
    ],
)
def test_names_that_would_be_mistaken_are_refused(own, name, options, told):
    with pytest.raises(ConfigError, match=told):
        envs.register(name, game, options)


@pytest.mark.parametrize(
    ("name", "like", "told"),
    [("ps_lora", "ps", "cannot be the name"), ("a,b", "ps", "cannot be the name"),
     ("own", "lora", "like=lora is not known"), ("own", "own_lora", "like=own_lora is not known")],
)  # fmt: skip
def test_ways_of_sharing_that_would_be_mistaken_are_refused(own, name, like, told):
    with pytest.raises(ConfigError, match=told):
        sharing.register(name, sharing.REGISTRY.row("ps").make, like=like)


def test_what_a_row_brings_is_not_given_beside_it(own):
    with pytest.raises(ConfigError, match="like=ps_lora brings phases"):
        sharing.register("mine", sharing.REGISTRY.row("ps_lora").make, like="ps_lora", cell="nps")


def test_a_run_of_a_way_of_sharing_that_is_not_there_is_told(own):
    with sharing.REGISTRY.temporary():
        sharing.register("gone_lora", sharing.REGISTRY.row("ps_lora").make, like="ps_lora")
        raw = config.load(["sharing=gone_lora"]).to_dict()
    with pytest.raises(ConfigError, match="sharing=gone_lora is not known"):
        config.resolve(OmegaConf.create(raw))


def test_an_environment_acts(own):
    env = envs.make("own_game")
    _, timestep = jax.jit(env.reset)(jax.random.key(0))
    assert timestep.obs.shape == (2, env.observation_size)
