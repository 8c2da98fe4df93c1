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
JOBS = 8
BATCH = [
    "env=probe_observation", "sharing=ps", "algo.num_envs=4", "algo.rollout_length=4",
    "algo.chunk_length=2", "algo.epochs=1", "network.hidden=4", "eval_episodes=2",
    "total_steps=16000", "eval_every=100", "updates_per_call=1", f"seed=range({JOBS})", "out=out",
    "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1",
]  # fmt: skip


def batch(folder, environment):
    command = [sys.executable, "-m", "lorasa_jax.run", "--multirun", *BATCH]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def jobs(environment):
    """What the controller says of every job, in words."""
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


def array_number(environment):
    """Of the batch's jobs, whose places in the array are their seeds."""
    return next(row["ArrayJobId"] for row in jobs(environment) if "ArrayJobId" in row)


def seed_of(folder):
    return folder.name.partition("-seed")[2].partition("-")[0]


def test_a_batch_survives_preemption_and_the_same_command_completes_it(tmp_path):
    with one_node.cluster(cpus=1) as environment:
        first = batch(tmp_path, environment)
        (preempted,) = wait_for(lambda: training(tmp_path), first)
        subprocess.run(
            ["srun", "--partition=high", "--ntasks=1", "true"], env=environment, check=True
        )
        # It waits in the queue's last place; meanwhile another begins.
        (cancelled,) = wait_for(lambda: set(training(tmp_path)) - {preempted}, first)
        number = array_number(environment)
        subprocess.run(["scancel", f"{number}_{seed_of(cancelled)}"], env=environment, check=True)
        printed, errors = first.communicate(timeout=PATIENCE)
        assert first.returncode == 1, printed + errors
        assert errors.count("cancelled or killed; the same command continues it") == 1
        assert printed.count("final return") == JOBS - 1
        assert len(list(tmp_path.glob("out/*/summary.json"))) == JOBS - 1
        assert (preempted / "summary.json").exists()
        assert not (cancelled / "summary.json").exists()

        again = batch(tmp_path, environment)
        printed, errors = again.communicate(timeout=PATIENCE)
        assert again.returncode == 0, printed + errors
        assert printed.count("final return") == JOBS
        logs = [path.read_text() for path in tmp_path.glob("runs/.multirun/.submitit/*/*.out")]
        assert [row for row in jobs(environment) if int(row.get("Restarts", 0))]
        assert sum("is already finished" in log for log in logs) == JOBS - 1
        assert sum("continuing from step" in log for log in logs) == 2
        assert sum("is queued again" in log for log in logs) == 1
    steps = [
        [json.loads(line)["env_steps"] for line in path.read_text().splitlines()]
        for path in tmp_path.glob("out/*/metrics.jsonl")
    ]
    assert len(steps) == JOBS and all(row == steps[0] for row in steps)
