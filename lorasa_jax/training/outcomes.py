"""How the jobs of a batch end: saved where one is stopped, told line by line and in the end."""

import contextlib
import io
import multiprocessing
import signal
import sys
import threading
from typing import Any, NamedTuple

from lorasa_jax import terminal
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training import execution

SAVED = "stopped and saved"
stopped = threading.Event()  # set by a signal: jobs that have not begun do not begin


class Outcome(NamedTuple):
    """How a job ended: its folder, an exit code as of `run.main`, and a message.

    score: the final return, where there is one; what a search maximises.
    """

    out: str
    code: int
    message: str
    score: float | None = None

    def __float__(self) -> float:
        """What a search takes for the job's value."""
        if self.score is None:
            raise ValueError(f"{self.out}: {self.message}")
        return self.score


def outcome_of(config: Config, **shared: Any) -> Outcome:
    """Trains one run of a batch (execution.execute), and tells how it ended."""
    try:
        summary = execution.execute(config, **shared)
    except ConfigError as error:
        return Outcome(config.out, 2, str(error))
    except TrainingError as error:
        return Outcome(config.out, 1, str(error))
    if summary is None:
        stopped.set()
        return Outcome(config.out, 0, SAVED)
    from lorasa_jax.training.reporting import amount

    final = summary["eval_return"]
    return Outcome(config.out, 0, f"final return {amount(final, 1)}", final)


def show(outcomes: list[Outcome]) -> int:
    """Prints how jobs ended; returns the exit code of the worst."""
    for out, code, message, _ in outcomes:
        if code:
            print(f"lorasa_jax: {out}: {message}", file=sys.stderr)
        else:
            print(f"{out}  {message}")
    if stopped.is_set() or any(outcome.message.startswith("stopped") for outcome in outcomes):
        print("the batch was stopped; the same command continues.")
    return max((outcome.code for outcome in outcomes), default=0)


@contextlib.contextmanager
def stopping(launcher: str):
    """Lets jobs on this machine save when a signal comes; a second one ends the batch at once.

    A terminal sends Ctrl-C to jobs' processes too; others come to this one and are passed on as
    SIGTERM.
    """
    if launcher not in ("basic", "joblib"):
        yield
        return

    def stop(number, frame):
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        if number != signal.SIGINT:
            for child in multiprocessing.active_children():
                child.terminate()

    handlers = {number: signal.signal(number, stop) for number in terminal.stop_signals()}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def labelled(name: str) -> contextlib.AbstractContextManager[Any]:
    """What is printed meanwhile, in whole lines behind a job's name."""
    return contextlib.redirect_stdout(Lines(name, sys.stdout))


class Lines(io.TextIOBase):
    """Standard output of one of several jobs: whole lines behind the job's name, and no bar."""

    def __init__(self, name, to):
        self.name, self.to, self.partial = name, to, ""

    def write(self, text):
        *lines, self.partial = (self.partial + text).split("\n")
        if lines:
            self.to.write("".join(f"{self.name}  {line}".rstrip() + "\n" for line in lines))
            self.to.flush()
        return len(text)
