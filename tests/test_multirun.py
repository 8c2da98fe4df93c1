"""Batches through Hydra's launchers: folders, refusals, interruptions, and going on."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lorasa_jax.config import flags
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import jobs, multirun

TINY = [
    "env=specialisation_2", "network.kind=ff", "network.hidden=8",
    "algo.num_envs=4",
    "algo.rollout_length=20", "total_steps=40000", "eval_every=50", "checkpoint_every=20",
    "updates_per_call=10",
]  # fmt: skip
CELLS = [*TINY, "sharing=ps,nps"]


def command(*words):
    return [sys.executable, "-m", "lorasa_jax.run", "--multirun", *words]


def run(folder, *words, code=0):
    done = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def metrics(out):
    """{run's folder: its metrics without speeds}."""
    found = {}
    for path in sorted(Path(out).glob("*/metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            del row["steps_per_second"]
        found[path.parent.name] = rows
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with both cells run one after the other, and what that printed."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, run(folder, *CELLS, "out=out").stdout


@pytest.mark.long
@pytest.mark.full
def test_every_job_has_a_folder_below_out_and_litter_has_its_own(alone):
    folder, printed = alone
    assert {path.name for path in folder.iterdir()} == {"out", "runs"}
    assert [path.name for path in (folder / "runs").iterdir()] == [".multirun"]
    runs = sorted((folder / "out").iterdir())
    assert [path.name.split("-")[2] for path in runs] == ["nps", "ps"]
    for path in runs:
        summary = json.loads((path / "summary.json").read_text())
        assert summary["sharing"] == path.name.split("-")[2]
        assert summary["command"].endswith(f"out=out/{path.name}")
        assert f"out/{path.name}  final return {summary['eval_return']:,.1f}" in printed


@pytest.mark.long
@pytest.mark.full
def test_joblib_interrupted_and_given_again_ends_bit_for_bit(alone, tmp_path):
    words = [*CELLS, "out=out", "hydra/launcher=joblib"]
    process = subprocess.Popen(command(*words), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while not any(len(rows) > 2 for rows in metrics(tmp_path / "out").values()):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "the batch was stopped; the same command continues" in printed
    assert len(list((tmp_path / "out").glob("*/summary.json"))) < 2
    again = run(tmp_path, *words).stdout
    assert metrics(tmp_path / "out") == metrics(alone[0] / "out")
    names = [path.name for path in (tmp_path / "out").iterdir()]
    for line in again.splitlines()[1:]:
        assert line.startswith((*names, "out/")), line


@pytest.mark.full
def test_submitit_skips_what_has_finished(alone, tmp_path):
    done = next((alone[0] / "out").glob("*-ps-*"))
    shutil.copytree(done, tmp_path / "out" / done.name)
    before = (tmp_path / "out" / done.name / "summary.json").stat().st_mtime_ns
    printed = run(tmp_path, *CELLS, "out=out", "hydra/launcher=submitit_local").stdout
    assert (tmp_path / "out" / done.name / "summary.json").stat().st_mtime_ns == before
    assert metrics(tmp_path / "out") == metrics(alone[0] / "out")
    assert printed.count("final return") == 2
    logs = tmp_path / "runs" / ".multirun" / ".submitit"
    assert any("already finished" in log.read_text() for log in logs.glob("*/*.out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


@pytest.mark.long
def test_a_job_whose_folder_is_in_use_is_told_and_leaves_the_other_alone(alone, tmp_path):
    shutil.copytree(alone[0] / "out", tmp_path / "out")
    with (next((tmp_path / "out").glob("*-ps-*")) / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(tmp_path, *CELLS, "out=out", code=2)
    assert "in use by another process" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout.count("is already finished") == 1


def test_a_refused_value_ends_the_batch_before_it_begins(tmp_path):
    done = run(tmp_path, *TINY, "sharing=ps,nps", "algo.gamma=0.9,1.5", code=2)
    assert done.stderr.strip() == "lorasa_jax: algo.gamma=1.5 must be above 0 and at most 1."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing=ps,lora"], "sharing=lora is not known"),
        (["sharing=ps,nps", "sharing.rank=4"], "not a key of sharing=ps"),
        (["logger=local,wandb"], "two jobs of the batch are the same run"),
        (["sharing=ps,nps", "env=ant_9x9"], "env=ant_9x9 is not known"),
        (["hydra/launcher=jobs"], "choose one of basic, joblib, submitit_local, submitit_slurm"),
        (["hydra/launcher=joblib", "hydra.launcher.n_job=3"], "hydra.launcher.n_job is not a key"),
        (["sed=0,1"], "unknown key sed; did you mean seed?"),
        (["seed=interval(0,1)"], "does not support"),
        (["hydra/sweeper=ax"], "hydra/sweeper=ax is not known"),
    ],
)
def test_refused_in_one_sentence(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refusal:
        multirun.batch([*TINY, *words])
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.long
def test_a_folder_in_other_use_is_refused(alone, monkeypatch):
    monkeypatch.chdir(alone[0])
    with pytest.raises(ConfigError, match="already holds a run"):
        multirun.batch([*CELLS, "out=out", "resume=false"])


def test_other_flags_are_refused():
    with pytest.raises(ConfigError, match="--info does not go with --multirun"):
        flags.read(["--multirun", "--info"])


def test_a_launcher_that_is_not_installed_is_told_how_to_get(monkeypatch):
    with pytest.raises(ConfigError, match=r"needs hydra-joblib-launcher; install it with pip"):
        multirun._check_launcher("joblib", ["basic"])


def test_slurm_is_refused_where_it_is_not(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="finds no srun here"):
        multirun._check_launcher("submitit_slurm", ["basic", "submitit_slurm"])


@pytest.mark.parametrize(
    ("word", "spelled"),
    [
        ("env=humanoid_9|8,ant_4x2", "env=humanoid_9_8,ant_4x2"),
        ("sharing=choice(ps,nps)", "sharing=choice(ps,nps)"),
        ("sharing.targets=[linear_1,linear_6],[gru_*]",) * 2,
    ],
)
def test_choices_that_are_several_are_spelled_one_by_one(word, spelled):
    assert multirun._spelled(word) == spelled


def test_lists_are_one_value_unless_they_are_several():
    words = [*TINY, "sharing=ps_lora", "sharing.targets=[linear_1,linear_2],[linear_7]", "seed=4"]
    with multirun._hydra() as hydra:
        members, _ = jobs.split([*words, "hydra.launcher.n_jobs=2"], hydra.config_loader)
    assert [[word for word in job if "targets" in word] for job in members] == [
        ["sharing.targets=[linear_1,linear_2]"],
        ["sharing.targets=[linear_7]"],
    ]


@pytest.mark.long
def test_jobs_know_what_a_program_registered(tmp_path):
    """An environment and a way of sharing of the program that starts the batch."""
    program = tmp_path / "own.py"
    program.write_text(
        textwrap.dedent(
            """
            from lorasa_jax import envs, run
            from lorasa_jax.envs import games
            from lorasa_jax import sharing

            def make(agents=2):
                return games.make(f"specialisation_{agents}")

            def twice(given):
                shared = sharing.ps(given.num_agents)
                return sharing.Sharing((shared,), (shared,))

            envs.register("own_game", make, {"agents": 2})
            sharing.register("own_ps", twice, like="ps")
            if __name__ == "__main__":
                run.main()
            """
        )
    )
    words = [*TINY[1:], "env=own_game", "sharing=own_ps", "total_steps=800"]
    done = subprocess.run(
        [sys.executable, program, "-m", *words, "hydra/launcher=joblib"],
        cwd=tmp_path, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/own_game-mappo-own_ps-*/summary.json"))) == 1
