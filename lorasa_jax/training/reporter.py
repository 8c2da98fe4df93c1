"""What a person sees of a run while it goes on, and the rows that it leaves behind."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from lorasa_jax import hosts
from lorasa_jax.config import Config
from lorasa_jax.files import replacing, write_atomically
from lorasa_jax.learn import devices
from lorasa_jax.sharing import Bank
from lorasa_jax.training import stored, warning_signs
from lorasa_jax.training.progress import Display, Meter
from lorasa_jax.training.reporting import (
    amount,
    draw_curve,
    finite_mean,
    print_summary,
    read_metrics,
)
from lorasa_jax.training.stored import METRICS, SUMMARY
from lorasa_jax.values import listed


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


def loggers(config: Config) -> list:
    """What is told beside the run's own files."""
    if config.logger["name"] == "local":
        return []
    from lorasa_jax.training.wandb_logger import WandbLogger

    return [WandbLogger(config)]


def reporter_of(config: Config, console: Console) -> "Reporter | Silence":
    """What a run reports to: of several hosts only the first one's is heard."""
    return Reporter(config, loggers(config), console) if hosts.leads() else Silence()


class Silence:
    """Takes all that a reporter takes, and does nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def compiling(self, what: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def metrics_digest(self) -> str:
        return ""  # the first host's is saved

    def __getattr__(self, name):
        return lambda *_, **__: None


class Reporter:
    """Receives a run's events and reports them to terminal, files and further loggers."""

    def __init__(self, config: Config, loggers=(), console: Console | None = None):
        self.config, self.loggers = config, tuple(loggers)
        self.out = Path(config.out)
        self.console = Console(highlight=False) if console is None else console
        self.meter = Meter(config.num_updates, config.updates_per_call)
        self.display = Display(self.console, self.meter, config.progress_every)
        rows = read_metrics(self.out)
        self.signs = set(warning_signs.found(rows))
        self._take_up(rows)

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

    def _take_up(self, rows):
        """What is known of metrics.jsonl without reading it again: its digest, its last rows."""
        self._digest = hashlib.sha256(stored.metrics_text(rows).encode())
        self._latest = rows[-warning_signs.STAYS * self.config.num_seeds :]

    def metrics_digest(self) -> str:
        """The digest of all rows as they were written, whatever has become of the file since."""
        return self._digest.hexdigest()

    def rewind(self, env_steps: int, evaluated: tuple[int, ...] = (), digest: str | None = None):
        """Forgets metrics of steps that will be run again: those after `env_steps`.

        evaluated: the steps up to there that were evaluated; digest: that of their lines. What
        the file has lost of them is said.
        """
        rows = [row for row in read_metrics(self.out) if row["env_steps"] <= env_steps]
        write_atomically(self.out / METRICS, stored.metrics_text(rows))
        self._take_up(rows)
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
        elif digest is not None and digest != self.metrics_digest():
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
        text = stored.metrics_text(rows)
        with (self.out / METRICS).open("a") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(text.encode())
        self._latest = [*self._latest, *map(json.loads, text.splitlines())]
        self._latest = self._latest[-warning_signs.STAYS * len(rows) :]
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
        for sign, sentence in warning_signs.found(self._latest).items():
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
