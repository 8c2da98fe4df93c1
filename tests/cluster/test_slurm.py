"""A batch on a real Slurm, of one node: a job makes room for another, one is cancelled."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import one_node

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(one_node.missing()), reason="needs slurm-wlm and munge"),
]

PATIENCE = 900  # seconds for all jobs
BATCH = [
    "env=probe_observation", "sharing=ps", "algo.num_envs=4", "algo.rollout_length=4",
    "algo.chunk_length=2", "algo.epochs=1", "network.hidden=4", "eval_episodes=2",
    "total_steps=48000", "eval_every=100", "updates_per_call=1", "seed=range(8)", "out=out",
    "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1",
]  # fmt: skip


def batch(folder, environment):
    command = [sys.executable, "-m", "lorasa_jax.run", "--multirun", *BATCH]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def jobs(environment):
    """What the controller says of every job, as dictionaries."""
    told = subprocess.run(
        ["scontrol", "--oneliner", "show", "job"], env=environment, capture_output=True, text=True
    ).stdout
    rows = [dict(x.split("=", 1) for x in line.split() if "=" in x) for line in told.splitlines()]
    return [row for row in rows if "JobState" in row]


def training(folder):
    """Folders of runs under way that have been evaluated twice."""
    return [
        path.parent
        for path in (folder / "out").glob("*/metrics.jsonl")
        if len(path.read_text().splitlines()) > 1 and not (path.parent / "summary.json").exists()
    ]


def wait_for(what, process):
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.1)
    return found


def running(environment):
    return [row for row in jobs(environment) if row["JobState"] == "RUNNING"]


@pytest.mark.parametrize("cpus", [1])
def test_a_batch_survives_preemption_and_the_same_command_completes_it(tmp_path, cpus):
    with one_node.cluster(cpus) as environment:
        first = batch(tmp_path, environment)
        (preempted,) = wait_for(lambda: training(tmp_path), first)
        subprocess.run(
            ["srun", "--partition=high", "--ntasks=1", "true"], env=environment, check=True
        )
        assert [row for row in jobs(environment) if int(row.get("Restarts", 0))]
        wait_for((preempted / "summary.json").exists, first)
        (cancelled,) = wait_for(lambda: training(tmp_path), first)
        (row,) = running(environment)
        subprocess.run(["scancel", row["JobId"]], env=environment, check=True)
        printed, errors = first.communicate(timeout=PATIENCE)
        assert first.returncode == 1, printed + errors
        assert errors.count("cancelled or killed; the same command continues it") == 1
        assert printed.count("final return") == 7
        assert len(list(tmp_path.glob("out/*/summary.json"))) == 7
        assert not (cancelled / "summary.json").exists()

        again = batch(tmp_path, environment)
        printed, errors = again.communicate(timeout=PATIENCE)
        assert again.returncode == 0, printed + errors
        assert printed.count("final return") == 8
        logs = [path.read_text() for path in tmp_path.glob("runs/.multirun/.submitit/*/*.out")]
        assert sum("is already finished" in log for log in logs) == 7
        assert sum("continuing from step" in log for log in logs) == 2
        assert sum("is queued again" in log for log in logs) == 1
    steps = [
        [json.loads(line)["env_steps"] for line in path.read_text().splitlines()]
        for path in tmp_path.glob("out/*/metrics.jsonl")
    ]
    assert len(steps) == 8 and all(row == steps[0] for row in steps)
