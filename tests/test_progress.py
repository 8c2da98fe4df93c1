"""A run's progress moves between compiled calls, in a log, a notebook and a terminal."""

import io
import time

import IPython.display
import pytest
from rich.console import Console

from lorasa_jax.training import progress
from lorasa_jax.training.progress import Display, Meter, duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def meter(clock):
    return Meter(total=100, most=5, clock=clock)


def test_what_is_compiled_is_told_with_how_long_it_has_taken(meter, clock):
    meter.doing("compiling phase ps")
    clock.now = 75.0
    assert "0.0%  compiling phase ps, 0:01:15" in meter.line({})


def test_percentage_moves_within_a_call_by_the_speed_of_earlier_ones(meter, clock):
    meter.doing("")
    clock.now = 10.0
    meter.advanced("ps", 5, seconds=2.0)
    assert meter.percentage == 5.0
    clock.now = 14.0
    assert meter.percentage == pytest.approx(7.0)
    clock.now = 1000.0
    assert meter.percentage < 10.0  # a call has five updates


def test_time_left_counts_evaluations_but_no_compilation(meter, clock):
    meter.doing("compiling phase ps")
    clock.now = 50.0
    meter.doing("")
    clock.now = 60.0
    meter.advanced("ps", 5, seconds=1.0)  # of ten seconds five were an evaluation's
    assert meter.left == pytest.approx(95 * 2.0)


def test_a_run_that_goes_on_counts_its_own_updates_only(meter, clock):
    meter.done = 50
    meter.doing("")
    clock.now = 10.0
    meter.advanced("ps", 55, seconds=2.0)
    assert meter.left == pytest.approx(45 * 2.0)


def test_durations_are_read_at_a_glance():
    assert [duration(x) for x in (0.4, 59.9, 61, 3723)] == ["0 s", "59 s", "0:01:01", "1:02:03"]


def shown(monkeypatch, console, every, seconds=0.3):
    """A display of a training under way, after some seconds of silence."""
    monkeypatch.setattr(progress, "REFRESH", 0.02)
    meter = Meter(total=100, most=5)
    display = Display(console, meter, every)
    display.start()
    meter.advanced("ps", 5, seconds=1.0)
    display.fields["speed"] = "123 steps/s"
    time.sleep(seconds)
    display.stop()
    return console.file.getvalue().splitlines()


def test_a_log_gets_a_line_whenever_nothing_was_said_for_a_while(monkeypatch):
    lines = shown(monkeypatch, Console(file=io.StringIO(), width=100), every=0.1)
    assert 2 <= len(lines) <= 4
    for line in lines:
        assert "%" in line and "123 steps/s" in line and line.endswith("left")


def test_a_log_without_progress_stays_empty(monkeypatch):
    assert shown(monkeypatch, Console(file=io.StringIO(), width=100), every=0.0) == []


def test_a_terminal_has_a_bar_with_percentage_and_time_left(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    text = "".join(shown(monkeypatch, console, every=5.0))
    assert "5%" in text and "ps" in text and " left" in text


def test_a_notebook_has_one_line_that_is_brought_up_to_date(monkeypatch):
    lines = []

    class Handle:
        def update(self, line):
            lines.append(repr(line))

    monkeypatch.setattr(IPython.display, "display", lambda line, display_id: Handle())
    console = Console(file=io.StringIO(), width=100)
    console.is_jupyter = True
    shown(monkeypatch, console, every=5.0)
    assert len(lines) > 3
    assert lines[-1].startswith("  5.") and "ps" in lines[-1] and lines[-1].endswith("left")
