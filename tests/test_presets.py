"""Presets: rows with sources, beaten by any key that is given, and refused where they are empty."""

import pytest
from omegaconf import OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax import envs, sharing
from lorasa_jax.config import presets
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import flat

load = configuration.load


def keys(*words):
    return flat(load(list(words)).to_dict())


@pytest.mark.parametrize("preset", ["authors", "tuned"])
def test_every_row_says_where_it_comes_from(preset):
    for row in presets.TABLES[preset]:
        assert len(row.source) > 20 and row.keys


@pytest.mark.sample(6, rest="long")
@pytest.mark.parametrize("sharing_", sharing.REGISTRY.names())
@pytest.mark.parametrize("algo", ["mappo", "a2po", "happo"])
@pytest.mark.parametrize("preset", ["authors", "tuned"])
def test_every_task_of_the_families_resolves_to_the_rows(preset, algo, sharing_):
    for env in ("ant_4x2", "humanoid_17x1", "manyagent_swimmer_4x2", "smax_3m", "smac_MMM2"):
        words = [f"env={env}", f"algo={algo}", f"sharing={sharing_}", f"preset={preset}"]
        found = keys(*words)
        for name, value in presets.numbers(preset, env, algo).items():
            if name != "switch_at" or sharing_.endswith("_lora"):
                assert found[name] == value, (env, name)


def test_the_authors_differ_from_the_paper_by_their_switches_alone():
    paper, authors = keys("env=ant_4x2"), keys("env=ant_4x2", "preset=authors")
    differing = {key: authors[key] for key in paper if paper[key] != authors[key]}
    assert differing.pop("out") != paper["out"]
    assert differing == {
        "preset": "authors", "env.action_order": "flat", "env.standardise": True,
        "algo.truncation": "authors",
    }  # fmt: skip
    a2po = keys("env=smac_3s5z", "algo=a2po", "preset=authors")
    wanted = {"trace": "squared", "clip_schedule": "tight", "trace_others": "preceding",
              "refresh": "step", "others_clip": 0.1, "truncation": "terminal"}  # fmt: skip
    assert {key: a2po[f"algo.{key}"] for key in wanted} == wanted


def test_tuned_numbers_of_tasks():
    ant = load(["env=ant_4x2", "preset=tuned", "sharing=nps"])
    assert (ant.algo.clip, ant.algo.epochs, ant.batch) == (0.1, 5, 4000)
    assert (ant.network.kind, ant.network.hidden, ant.total_steps) == ("ff", 128, 10_000_000)
    walker = load(["env=walker2d_2x3", "preset=tuned", "sharing=nps"]).algo
    assert (walker.actor_lr, walker.minibatches, walker.lr_decay) == (1e-3, 2, "linear")
    other = load(["env=walker2d_6x1", "preset=tuned", "sharing=nps"]).algo
    assert (other.actor_lr, other.minibatches, other.lr_decay) == (5e-4, 1, "none")


def test_adapters_begin_after_a_third_and_both_phases_have_the_numbers():
    config = load(["env=halfcheetah_2x3", "preset=tuned", "sharing=ps_lora"])
    assert config.switch_at == 3_332_000
    assert config.algo_of(0) == config.algo_of(1)
    short = load(["env=halfcheetah_2x3", "preset=tuned", "sharing=ps_lora", "total_steps=3e6"])
    assert short.switch_at == 1_000_000


@pytest.mark.parametrize(
    "word, key, value",
    [
        ("algo.clip=0.3", "algo.clip", 0.3),
        ("env.full_observation=false", "env.full_observation", False),
        ("network.kind=gru", "network.kind", "gru"),
        ("total_steps=4e6", "total_steps", 4_000_000),
        ("switch_at=2e6", "switch_at", 2_000_000),
        ("critic_sharing=nps", "critic_sharing", "nps"),
    ],
)
def test_a_key_that_is_given_wins(word, key, value):
    assert keys("env=ant_4x2", "preset=tuned", word)[key] == value
    assert keys("env=ant_4x2", "preset=tuned")[key] != value


def test_a_runs_own_configuration_is_left_as_it_is():
    """It may hold keys that were given; the preset must not take them back."""
    given = load(["env=ant_4x2", "preset=tuned", "algo.clip=0.3"])
    again = configuration.resolve(OmegaConf.create(given.to_dict()))
    assert again.algo.clip == 0.3 and again.decisive() == given.decisive()


def test_the_same_numbers_given_one_by_one_are_the_same_run():
    words = [f"{k}={v}" for k, v in presets.numbers("tuned", "ant_4x2", "mappo").items()]
    words = [word for word in words if not word.startswith("switch_at")]
    one, other = (load(["env=ant_4x2", "sharing=ps", *more]) for more in (words, ["preset=tuned"]))
    assert one.decisive() == other.decisive() and one.out == other.out


@pytest.mark.parametrize("preset", ["authors", "tuned"])
def test_environments_without_numbers_are_refused(preset):
    with pytest.raises(ConfigError, match="has no numbers for env=probe_constant"):
        load(["env=probe_constant", "sharing=ps", f"preset={preset}"])
    for env in envs.names():
        family = env.partition("_")[0]
        known = family not in ("probe", "specialisation", "synchronisation", "jaxmarl")
        assert known == any(row.env != "*" and _matches(env, row) for row in presets.TABLES[preset])


def _matches(env, row):
    return presets.fnmatchcase(env, row.env)
