"""What a run came to: its rows read back, the summary, the table, the learning curve."""

import math
import platform
import resource
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from lorasa_jax import __version__, machine
from lorasa_jax.config import Config
from lorasa_jax.training import digests, stored, warning_signs
from lorasa_jax.values import whole_number


def read_metrics(out: str | Path) -> list[dict]:
    """The rows of a run's metrics.jsonl; lines that are none, such as a cut one, are left out."""
    return stored.metrics(out).rows


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
    see measures.ranks. returns: (update, mean) of all evaluations, by default those in
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
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 4M
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
