"""A run as a job of Slurm: when its time is up or others go first it saves, and is queued again.

Slurm asks a job to end by SIGTERM, be it preempted or cancelled, and submitit by SIGUSR2 when its
time is nearly up. A run that was stopped so leaves no result, for submitit would take it for the
job's last word while the job waits to go on.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator

LAUNCHER = "submitit_slurm"


def job() -> str | None:
    """This job's number as Slurm's commands take it; None outside of Slurm."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@contextlib.contextmanager
def saving() -> Iterator[list[str]]:
    """Inside, a job whose time is nearly up is stopped and saved as by SIGTERM.

    The list tells afterwards whether that was so.
    """
    told: list[str] = []

    def nearly_up(number, frame):
        told.append(signal.Signals(number).name)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGUSR2, nearly_up)
    try:
        yield told
    finally:
        signal.signal(signal.SIGUSR2, before)


def leave(told: list[str]) -> None:
    """Ends this job, whose run was stopped and saved; where Slurm did not cancel it, it returns.

    told: what `saving` heard. Raises SystemExit, which submitit takes for no result.
    """
    number = job()
    if number is not None and (told or _preempted(number)):
        print(f"job {number} is queued again and goes on where it was saved", flush=True)
        subprocess.run(["scontrol", "requeue", number], capture_output=True, check=False)
    raise SystemExit(128 + signal.SIGTERM)


def _preempted(number):
    """Whether the job has to make room; a job that is cancelled does not run any more."""
    told = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", number],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    state = re.search(r"JobState=(\w+)", told)
    when = re.search(r"PreemptTime=(\S+)", told)
    running = state is not None and state[1] == "RUNNING"
    return running and when is not None and when[1] not in ("None", "N/A", "Unknown")
