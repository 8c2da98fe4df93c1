"""Killed with SIGKILL at any moment, again and again, a run ends bit for bit all the same."""

import random
import subprocess
import sys
import time

import pytest
from tiny_runs import LONG, TINY, leaves, rows

KILLS = 25 if LONG else 2  # of each of the four kinds of run
JOBS = {
    "one seed": [],
    "several seeds": ["num_seeds=2", "seed=5"],
    "a2po": ["algo=a2po", "env=specialisation_2", "sharing=ps_lora", "switch_at=200"],
    "found groups": ["env=smax_3m", "env.max_steps=4", "sharing=seps"],
}
STEPS = ["total_steps=400", "eval_every=5", "checkpoint_every=3"]


def start(out, words):
    command = [sys.executable, "-m", "lorasa_jax.run", *TINY, *STEPS, *words, f"out={out}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process):
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in said, said
    return said


@pytest.mark.long
@pytest.mark.upstream
@pytest.mark.parametrize("job", JOBS)
def test_it_ends_as_one_that_was_not_killed(job, tmp_path):
    whole, out, words = tmp_path / "whole", tmp_path / "run", JOBS[job]
    began = time.monotonic()
    ended(start(whole, words))
    lasts = time.monotonic() - began
    chance = random.Random(job)
    for _ in range(KILLS):
        process = start(out, words)
        time.sleep(chance.uniform(0.3, 1.0) * lasts)
        process.kill()
        said, _ = process.communicate()
        assert "Traceback" not in said, said
    ended(start(out, words))
    assert (rows(out), leaves(out)) == (rows(whole), leaves(whole))
