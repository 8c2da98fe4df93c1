"""What a person sees of a run, and what a run leaves behind: bar, lines, files, pictures."""

import contextlib
import json
import math
import os
import platform
import resource
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from lorasa_jax import __version__, machine
from lorasa_jax.config import Config
from lorasa_jax.files import replacing, write_atomically
from lorasa_jax.learn import devices
from lorasa_jax.sharing import Bank
from lorasa_jax.training import digests, stored, warning_signs
from lorasa_jax.training.progress import Display, Meter
from lorasa_jax.training.stored import METRICS, SUMMARY
from lorasa_jax.values import listed, whole_number


def read_metrics(out: str | Path) -> list[dict]:
    """The rows of a run's metrics.jsonl; lines that are none, such as a cut one, are left out."""
    return stored.metrics(out).rows


def headline(config: Config) -> str:
    """What is trained, in one line."""
    phases = " then ".join(
        f"{name} to {end * config.batch:,}"
        for name, end in zip(config.phase_names, config.phase_ends, strict=True)
    )
    return (
        f"{config.env['name']} · {config.algo.name} · {config.sharing['name']} · "
        f"seeds {config.seeds[0]}..{config.seeds[-1]} · {config.total_steps:,} steps: {phases}"
    )


class Reporter:
    """Receives a run's events and reports them to terminal, files and further loggers."""

    def __init__(self, config: Config, loggers=(), console: Console | None = None):
        self.config, self.loggers = config, tuple(loggers)
        self.out = Path(config.out)
        self.console = Console(highlight=False) if console is None else console
        self.meter = Meter(config.num_updates, config.updates_per_call)
        self.display = Display(self.console, self.meter, config.progress_every)
        self.signs = set(warning_signs.found(read_metrics(self.out)))

    def __enter__(self):
        self.display.start()
        return self

    def __exit__(self, *_):
        self.display.stop()
        for logger in self.loggers:
            logger.close()

    def say(self, text: str) -> None:
        self.display.say(text)

    def started(self) -> None:
        for note in self.config.notes:
            self.say(note)
        if self.config.devices > 1:
            seeds, parts = devices.split(self.config.devices, self.config.num_seeds)
            self.say(
                f"devices: {seeds * parts}, each with {self.config.num_seeds // seeds} seeds and "
                f"{self.config.algo.num_envs // parts} of their environments"
            )
        self.say(f"results in {self.config.out}")

    def compiling(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Shows that `what` is compiled, and for how long."""
        return self.display.doing(f"compiling {what}")

    def rewind(self, env_steps: int, evaluated: tuple[int, ...] = (), digest: str | None = None):
        """Forgets metrics of steps that will be run again: those after `env_steps`.

        evaluated: the steps up to there that were evaluated; digest: that of their lines. What
        the file has lost of them is said.
        """
        rows = [row for row in read_metrics(self.out) if row["env_steps"] <= env_steps]
        text = stored.metrics_text(rows)
        write_atomically(self.out / METRICS, text)
        present = {(row["env_steps"], row["seed"]) for row in rows}
        gone = sorted(
            {s for s in evaluated for seed in self.config.seeds if (s, seed) not in present}
        )
        if gone:
            steps = ", ".join(f"{step:,}" for step in gone[:5]) + (", ..." if len(gone) > 5 else "")
            self.say(
                f"warning: {self.out / METRICS} has lost lines of {len(gone)} of "
                f"{len(evaluated)} evaluations, at steps {steps}; training is not affected."
            )
        elif digest is not None and digest != digests.of_text(text):
            self.say(
                f"warning: {self.out / METRICS} holds other numbers than this run wrote up to "
                f"step {env_steps:,}; training is not affected."
            )
        if env_steps >= 0:
            self.say(f"continuing from step {env_steps:,}")
            self.meter.done = env_steps // self.config.batch

    def switched(self, env_steps: int, phase: str, banks: Mapping[str, Bank]) -> None:
        """A phase begins, whose actor has these banks of parameters."""
        trained = listed(name for name, bank in banks.items() if bank.trained)
        frozen = listed(name for name, bank in banks.items() if not bank.trained)
        rest = f", {frozen} frozen" if frozen else ""
        self.say(f"step {env_steps:,}: {phase} begins, trains {trained}{rest}")

    def advanced(
        self,
        phase: str,
        update: int,
        seconds: float,
        mean_return: float,
        wins: float | None = None,
        spread: float | None = None,
    ) -> None:
        """seconds per update; mean return and share of wins of the episodes played lately.

        spread: the mean standard deviation of the actions, where they are continuous.
        """
        config, fields = self.config, self.display.fields
        self.meter.advanced(phase, update, seconds)
        if not math.isnan(mean_return):
            fields["return"] = f"return {mean_return:9,.1f}"
        if wins is not None and not math.isnan(wins):
            fields["wins"] = f"won {wins:4.0%}"
        if spread is not None and not math.isnan(spread):
            fields["spread"] = f"std {spread:.2f}"
        fields["speed"] = f"{config.batch * config.num_seeds / seconds:8,.0f} steps/s"

    def evaluated(self, rows: list[dict]) -> None:
        with (self.out / METRICS).open("a") as file:
            file.write(stored.metrics_text(rows))
            file.flush()
            os.fsync(file.fileno())
        for logger in self.loggers:
            logger.log(rows)
        first = rows[0]
        speed = first["steps_per_second"]
        wins = [row["win_rate"] for row in rows if "win_rate" in row]
        spreads = [row.get("action_std") for row in rows]
        spreads = [x for x in spreads if x is not None and math.isfinite(x)]
        bad = sum(row.get("eval_not_finite", 0) for row in rows)
        self.say(
            f"{first['phase']:>8}  step {first['env_steps']:>11,}  "
            f"return {amount(finite_mean(row['eval_return'] for row in rows), 1):>9}"
            + (f"  win rate {np.mean(wins):6.1%}" if wins else "")
            + (f"  std {np.mean(spreads):5.3f}" if spreads else "")
            + (f"  {speed:7,.0f} steps/s" if speed else "")
            + (f"  {bad} returns not finite" if bad else "")
        )
        for sign, sentence in warning_signs.found(read_metrics(self.out)).items():
            if sign not in self.signs:
                self.signs.add(sign)
                self.say(f"warning: {sentence}")

    def interrupted(self, signal: str, update: int) -> None:
        self.display.stop()
        saved = "stopped and saved" if update else "stopped"
        self.say(
            f"{signal}: {saved} at step {update * self.config.batch:,}; the same command continues."
        )

    def finished(self, summary: dict) -> None:
        """Writes summary.json and the learning curve, and prints both in short."""
        self.meter.done = self.config.num_updates
        self.display.stop()
        with replacing(self.out / "curve.png") as part:
            draw_curve(read_metrics(self.out), self.config, part)
        curve = self.out / "curve.png"
        for logger in self.loggers:
            logger.summarise(summary, curve)
        write_atomically(self.out / SUMMARY, json.dumps(summary, indent=2) + "\n")
        print_summary(self.console, summary)


def summarise(
    config: Config,
    seconds: dict[str, float],
    parameters: dict[str, int],
    engine: str | None = None,
    ranks: Sequence[dict[str, list[int]]] = (),
    returns: list[tuple[int, float]] | None = None,
) -> dict:
    """The run in one dictionary; returns are of the last evaluation, per seed and over seeds.

    The best return is the largest mean over seeds of an evaluation; a mean without any finite
    return is None. engine: the physics engine that `auto` has become, where there is one. ranks:
    see loop.Run.ranks. returns: (update, mean) of all evaluations, by default those in
    metrics.jsonl.
    """
    rows = read_metrics(config.out)
    last = [row for row in rows if row["env_steps"] == config.total_steps]
    finals = [row["eval_return"] for row in last]
    if returns is None:
        means = {step: finite_mean(values) for step, values in returns_by_step(rows).items()}
    else:
        means = {update * config.batch: mean for update, mean in returns}
    means = {step: mean for step, mean in means.items() if mean is not None}
    best = max(means, key=lambda step: means[step], default=None)
    first_step = 0
    if config.init_from is not None:  # what came before was another run's
        first_step = whole_number(config.init_from.rpartition("@")[2], "the step of init_from")
    steps = (config.total_steps - first_step) * config.num_seeds
    train_seconds = seconds["train"]
    wins = [row["win_rate"] for row in last if "win_rate" in row]
    values = {
        "env": config.env["name"],
        "algo": config.algo.name,
        "sharing": config.sharing["name"],
        "seeds": list(config.seeds),
        "env_steps": config.total_steps,
        "switched_at": switched_at(rows, config),
        "phases": {name: step for step, name in phase_starts(rows, config)},
        "eval_return": finite_mean(finals),
        "eval_return_per_seed": finals,
        **({"win_rate": float(np.mean(wins)), "win_rate_per_seed": wins} if wins else {}),
        "best_eval_return": None if best is None else means[best],
        "best_eval_step": best,
        "steps_per_second": steps / train_seconds if train_seconds else None,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "parameters": parameters,
        **({"ranks_per_seed": list(ranks)} if ranks else {}),
        **({} if engine is None else {"engine": engine}),
        "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
        "cpus": machine.cpus(),
        "python": platform.python_version(),
        "versions": {
            **{name: version(name) for name in ("jax", "flax", "mujoco", "jaxmarl")},
            "lorasa_jax": __version__,  # which need not be installed
        },
        "warnings": list(warning_signs.found(rows).values()),
        "command": config.command,
        "metrics_sha256": digests.of_text(stored.metrics_text(rows)),
    }
    return digests.signed(values)


def finite_mean(values: Iterable[float | None]) -> float | None:
    """The mean of what is finite; None where nothing is."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def amount(value: float | None, digits: int = 0) -> str:
    """A number with commas; `-` for None and what is not finite."""
    return f"{value:,.{digits}f}" if value is not None and math.isfinite(value) else "-"


def returns_by_step(rows: list[dict]) -> dict[int, list[float | None]]:
    """{environment step: evaluation returns of the seeds}, in the order of the rows."""
    returns: dict[int, list[float | None]] = {}
    for row in rows:
        returns.setdefault(row["env_steps"], []).append(row["eval_return"])
    return returns


def phase_starts(rows: list[dict], config: Config) -> list[tuple[int, str]]:
    """(step, name) of every phase after the first: as configured, or as a rule decided.

    A phase that the rows do not reach begins where it is configured to at the latest.
    """
    ends: dict[str, int] = {}
    for row in rows:
        ends[row["phase"]] = max(row["env_steps"], ends.get(row["phase"], 0))
    names = config.phase_names
    return [
        (ends.get(before, latest), name)
        for before, name, latest in zip(names, names[1:], config.switches, strict=False)
    ]


def switched_at(rows: list[dict], config: Config) -> int | None:
    """The step at which the second phase begins; None with one phase."""
    return next((step for step, _ in phase_starts(rows, config)), None)


def print_summary(console: Console, summary: dict) -> None:
    """One table: what was run, how well it did, what it cost."""
    table = Table(show_header=False, box=None, pad_edge=False)
    per_seed = "  ".join(amount(value, 1) for value in summary["eval_return_per_seed"])
    best = amount(summary["best_eval_return"], 1)
    if summary["best_eval_step"] is not None:
        best += f" at {summary['best_eval_step']:,}"
    seconds = summary["seconds"]
    rows = {
        "run": f"{summary['env']} · {summary['algo']} · {summary['sharing']}",
        "steps": f"{summary['env_steps']:,} per seed"
        + (f", switched at {summary['switched_at']:,}" if summary.get("switched_at") else ""),
        "final return": f"{amount(summary['eval_return'], 1)}   per seed: {per_seed}",
        "best return": best,
        "speed": f"{amount(summary['steps_per_second'])} steps/s",
        "compiling": f"{seconds['compile']:.0f} s",
        "memory": f"{summary['peak_memory_gib']} GiB at the peak",
    }
    if "win_rate" in summary:
        rows["win rate"] = f"{summary['win_rate']:.1%}"
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def draw_curve(rows: list[dict], config: Config, path: Path) -> Path:
    """Greedy and sampled return over environment steps, per seed; where phases begin is marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, seed in enumerate(config.seeds):
        seed_rows = [row for row in rows if row["seed"] == seed]
        steps = [row["env_steps"] for row in seed_rows]
        sampled = [_or_nan(row.get("train_return")) for row in seed_rows]
        colour, label = f"C{i}", f"seed {seed}, " if config.num_seeds > 1 else ""
        greedy = [_or_nan(row["eval_return"]) for row in seed_rows]
        axes.plot(steps, greedy, color=colour, lw=1.4, label=f"{label}greedy")
        axes.plot(steps, sampled, color=colour, lw=1, ls=":", label=f"{label}while training")
    for step, phase in phase_starts(rows, config):
        axes.axvline(step, color="0.4", ls="--", lw=1)
        axes.annotate(
            f" {phase}", (step, 1.0), xycoords=("data", "axes fraction"),
            va="top", color="0.4", fontsize=8,
        )  # fmt: skip
    axes.set_xlabel("environment steps")
    axes.set_ylabel("episode return")
    axes.set_title(f"{config.env['name']}  {config.algo.name}  {config.sharing['name']}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def _or_nan(value):
    return math.nan if value is None else value
