"""Compiled programs are kept on disk, and are the same for other seeds and lengths."""

import functools
import os
import subprocess
import sys

import jax
import pytest

from lorasa_jax import compile_cache
from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import phases
from lorasa_jax.training.numbers import lanes_of
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

SMALL = [
    "env=probe_observation", "algo.num_envs=4", "algo.rollout_length=4", "algo.chunk_length=2",
    "algo.epochs=1", "network.hidden=4", "eval_episodes=2",
]  # fmt: skip


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """JAX as it is without any of its variables, and a user's own folder for caches."""
    names = (
        "jax_compilation_cache_dir", "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    )  # fmt: skip
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path
    compile_cache._ours.clear()
    for name, value in before.items():
        jax.config.update(name, value)
    compile_cache.compilation_cache.reset_cache()


def where():
    return jax.config.values["jax_compilation_cache_dir"]


def test_the_cache_lies_in_the_users_folder_and_is_told_once(no_cache, capsys):
    compile_cache.enable()
    assert where() == str(compile_cache.folder())
    assert where().startswith(str(no_cache / "lorasa_jax"))
    assert jax.config.values["jax_compilation_cache_max_size"] == compile_cache.MOST
    assert where() in capsys.readouterr().out
    compile_cache.enable()
    assert capsys.readouterr().out == ""


def test_a_key_moves_the_cache_or_switches_it_off(no_cache):
    compile_cache.enable(str(no_cache / "mine"))
    assert where() == str(no_cache / "mine")
    compile_cache.enable(None)
    assert where() is None


def test_a_cache_that_the_user_has_chosen_stays(no_cache):
    jax.config.update("jax_compilation_cache_dir", str(no_cache / "theirs"))
    for place in (None, "auto", str(no_cache / "mine")):
        compile_cache.enable(place)
        assert where() == str(no_cache / "theirs")


def test_a_folder_that_cannot_be_made_is_refused(no_cache):
    (no_cache / "file").touch()
    with pytest.raises(ConfigError, match=r"compile_cache=.*cannot be made"):
        compile_cache.enable(str(no_cache / "file" / "cache"))


def programs(monkeypatch, *overrides):
    """The text of every program that a run of these keys compiles."""
    texts = []
    config = configuration.load([*SMALL, *overrides])
    teams = build_teams(config)
    begin = jax.jit(functools.partial(phases.begin, config, teams[0]))
    texts.append(begin.lower(lanes_of([config])).as_text())
    with monkeypatch.context() as patch:
        patch.setattr(jax.stages.Lowered, "compile", lambda self: texts.append(self.as_text()))
        for index, team in enumerate(teams):
            shapes = jax.eval_shape(functools.partial(phases.until, config, teams, index))
            compile_phase(config, index, team, shapes)
    return texts


NUMBERS = [
    "algo.clip=0.11", "algo.actor_lr=3e-3", "algo.critic_lr=2e-3", "algo.gamma=0.9",
    "algo.gae_lambda=0.8", "algo.max_grad_norm=3",
]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize(
    ("common", "numbers"),
    [
        (["algo.lr_decay=linear", "sharing=ps"], NUMBERS),
        pytest.param(
            ["sharing=ps_lora", "algo.entropy_coef=0.01", "algo.target_kl=0.1"],
            [*NUMBERS, "algo.entropy_coef=0.02", "algo.target_kl=0.2", "sharing.alpha=3"],
            marks=pytest.mark.full,
        ),
    ],
)
def test_programs_know_no_seed_no_length_no_folder_and_no_number(monkeypatch, common, numbers):
    one = programs(monkeypatch, *common, "seed=0", "total_steps=64", "out=one")
    other = programs(monkeypatch, *common, *numbers, "seed=7", "total_steps=640", "out=other")
    assert len(one) in (3, 5)
    assert one == other


@pytest.mark.full
def test_a_second_run_of_another_seed_and_length_compiles_nothing(tmp_path):
    # The latter is set by JAX when it is imported.
    ours = ("JAX_COMPILATION_CACHE_DIR", "TF_CPP_MIN_LOG_LEVEL")
    environment = {k: x for k, x in os.environ.items() if k not in ours}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "caches")
    kept = []
    for words in (["seed=0", "total_steps=64"], ["seed=3", "total_steps=160"]):
        out = tmp_path / words[0]
        command = [sys.executable, "-m", "lorasa_jax.run", *SMALL, *words, f"out={out}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        kept.append({path.name for path in (tmp_path / "caches").rglob("*-cache")})
        assert ("compiled programs are kept in" in done.stdout) == (len(kept) == 1)
    assert any("jit_run" in name for name in kept[0])
    assert kept[0] == kept[1]
