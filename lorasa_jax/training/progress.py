"""How far a run is, shown while compiled code runs: a bar, a notebook's line, or lines of a log.

A thread shows it once a second, for the run itself may be inside one compiled call for longer. A
log gets a line only where nothing was said for `every` seconds.
"""

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

REFRESH = 1.0  # seconds


class Meter:
    """What a run is doing, and an estimate of how far it is within the call that is under way.

    total: updates of the whole run; most: updates of one call at most. clock: seconds [].
    """

    def __init__(self, total: int, most: int, clock: Callable[[], float] = time.monotonic):
        self.total, self.most, self._clock = total, most, clock
        self.done, self.phase = 0, ""
        self.seconds: float | None = None  # per update, of the last call
        self._wall, self._counted = 0.0, 0  # with evaluations and saving; updates since the start
        self.what, self.since = "starting", clock()

    def doing(self, what: str) -> None:
        """From now on the run does `what`; an empty word: it trains."""
        self.what, self.since = what, self._clock()

    def advanced(self, phase: str, done: int, seconds: float) -> None:
        """`done` updates are over, the last of them took `seconds` each; the next call begins."""
        now = self._clock()
        self._wall += now - self.since
        self._counted += done - self.done
        self.done, self.phase, self.seconds = done, phase, seconds
        self.since = now

    @property
    def elapsed(self) -> float:
        """Seconds since this call, or what is done instead, began."""
        return self._clock() - self.since

    @property
    def updates(self) -> float:
        """Updates that are over, and a part of those under way by the speed of earlier ones."""
        if self.what or not self.seconds:
            return float(self.done)
        under_way = min(self.elapsed / self.seconds, 0.95 * self.most)
        return min(self.done + under_way, float(self.total))

    @property
    def percentage(self) -> float:
        return 100.0 * self.updates / self.total

    @property
    def left(self) -> float | None:
        """Seconds until the end at the speed so far; None before there is one."""
        if not self._counted:
            return None
        return (self.total - self.updates) * self._wall / self._counted

    def label(self) -> str:
        """The phase, or what is done instead and for how long."""
        if self.what:
            return f"{self.what}, {duration(self.elapsed)}"
        return self.phase or f"first updates, {duration(self.elapsed)}"

    def line(self, fields: dict[str, str]) -> str:
        """All of it in one line, with further words about the training."""
        left = "" if self.left is None else f"{duration(self.left)} left"
        words = [f"{self.percentage:5.1f}%", self.label(), *fields.values(), left]
        return "  ".join(word for word in words if word)


def duration(seconds: float) -> str:
    """34 s, or 1:02:03 from a minute on."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}"


class Display:
    """Shows a meter until it is stopped; `say` prints a line beside it.

    every: seconds between lines where the console is neither a terminal nor a notebook; 0: none.
    """

    def __init__(self, console: Console, meter: Meter, every: float):
        self.console, self.meter, self.every = console, meter, every
        self.fields: dict[str, str] = {}
        self.bar = Progress(
            TextColumn("{task.fields[label]:>8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[words]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=console.is_jupyter or not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=meter.total, label="start", words="", left="")
        self._said = time.monotonic()
        self._handle: Any = None
        self._stopped = threading.Event()
        context = contextvars.copy_context()  # in which a notebook knows its cell
        self._thread = threading.Thread(target=context.run, args=(self._watch,), daemon=True)

    def start(self) -> None:
        self.bar.start()
        if self.console.is_jupyter:
            from IPython.display import display

            self._handle = display(_Line(self.meter.line({})), display_id=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the display; a second time does nothing."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
            self.show()
        self.bar.stop()

    def say(self, text: str) -> None:
        self._said = time.monotonic()
        self.console.print(text, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """What the run does inside, instead of training; a log is told at once."""
        self.meter.doing(what)
        if not self.console.is_terminal:
            self.say(f"{what} ...")
        self.show()
        yield
        self.meter.doing("")

    def show(self) -> None:
        """Brings terminal and notebook up to date."""
        meter = self.meter
        left = "" if meter.left is None else f"{duration(meter.left)} left"
        self.bar.update(
            self.task, completed=meter.updates, label=meter.label(), left=left,
            words="  ".join(self.fields.values()),
        )  # fmt: skip
        if self._handle is not None:
            self._handle.update(_Line(meter.line(self.fields)))

    def _watch(self) -> None:
        while not self._stopped.wait(REFRESH):
            self.show()
            quiet = time.monotonic() - self._said
            # A little early, for lines are due `every` seconds and this is not called in between.
            if not self.console.is_terminal and 0 < self.every <= quiet + REFRESH:
                self.say(self.meter.line(self.fields))


class _Line:
    """A line of text as a notebook shows it."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text
