"""The tables of docs/results.md and docs/claims.md, out of the kept runs.

    python -m experiments.pages

writes them between the marks of those pages and leaves all else as it is. Nothing is measured here:
the benchmark is of every kept run of experiments/results, the claims of those that were trained
alike but for one key.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from experiments import comparison, evidence, pictures
from experiments.evidence import Kept
from experiments.keep import RESULTS
from lorasa_jax.analysis import curves
from lorasa_jax.files import write_atomically

DOCS = RESULTS.parent.parent / "docs"
CLOSE = 0.05  # of the other's return: what counts as matching
# Published returns of the same task at 10M steps, {(env, preset, sharing): text}; docs/results.md
# names the sources.
PUBLISHED = {
    ("ant_4x2", "tuned", "nps"): "5,874 and 4,309",
    ("halfcheetah_2x3", "tuned", "nps"): "6,984 and 5,058",
    ("humanoid_17x1", "paper", "ps"): "566",
    ("humanoid_17x1", "paper", "nps"): "6,188",
}


def benchmark(runs: Iterable[Kept]) -> str:
    """A Markdown table with a row for every kept run, and below it the numbered commands."""
    head = (
        "task", "preset", "sharing", "n", "steps", "at the end", "published", "seconds",
        "machine", "command",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    ordered = sorted(runs, key=lambda run: (run.env, run.preset != "tuned", run.name))
    lines += [_benchmark_row(run, number) for number, run in enumerate(ordered, 1)]
    lines += ["", "Commands:", ""]
    lines += [f"{number}. `{run.command}`" for number, run in enumerate(ordered, 1)]
    return "\n".join(lines)


def _benchmark_row(run, number):
    steps = pictures.steps(int(run.steps[-1]))
    if not run.finished:
        steps += f" of {pictures.steps(run.config['total_steps'])}"
    found = comparison.told(run.ends(), run.metric)
    if run.metric == "win_rate":
        found += " won"
    if run.name in evidence.SUPERSEDED:
        found += ", superseded"
    seconds, machine = "-", "2 CPUs"
    if run.finished:
        seconds = f"{run.summary['seconds']['train']:,.0f}"
        machine = f"{run.summary['device'].partition(' x ')[0]}, {run.summary['cpus']} CPUs"
    cells = (
        run.env, run.preset, f"{run.algo}, {run.sharing}", str(len(run.seeds)), steps, found,
        PUBLISHED.get((run.env, run.preset, run.sharing), "-"), seconds, machine,
        str(number),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


# --- claims --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A claim on one task: the difference of every seed, and how far below zero is still true.

    unit: how a difference is written; command: what made the numbers; exact: it is counted, and
    the same for every seed.
    """

    task: str
    differences: np.ndarray
    margin: float
    unit: Callable[[float], str]
    command: str
    exact: bool = False

    @property
    def interval(self):
        return curves.mean_interval(self.differences)

    @property
    def verdict(self) -> str:
        """By the interval over seeds: all of it above the margin, all of it below, or neither."""
        if self.exact:
            return "supported" if self.differences.min() > -self.margin else "refuted"
        if self.interval is None:
            return f"undecided: {len(self.differences)} seeds, {curves.LEAST_SEEDS} are needed"
        low, high = self.interval
        return (
            "supported" if low > -self.margin else "refuted" if high < -self.margin else "undecided"
        )


def amount(value: float) -> str:
    return f"{value:+,.0f}"


def share(value: float) -> str:
    return f"{100 * value:+.1f}%"


def plain(value: float) -> str:
    return f"{value:+.2f}"


def pairs(runs: Iterable[Kept], ours: Callable, theirs: Callable) -> Iterable[tuple[Kept, Kept]]:
    """Kept runs that `ours` and `theirs` choose, of one task, algorithm, preset and length."""
    runs = [run for run in runs if run.finished and run.name not in evidence.SUPERSEDED]
    for one in filter(ours, runs):
        for other in filter(theirs, runs):
            same = all(_same(run) == _same(one) for run in (one, other))
            if same and one is not other and one.seeds == other.seeds:
                yield one, other


def _same(run):
    return run.env, run.algo, run.preset, run.config["total_steps"], run.config["env"]


def compared(ours: Callable, theirs: Callable, close: float = 0.0) -> Callable:
    """A claim that one kind of run ends above another, or not below it by more than a share."""

    def findings(runs):
        for one, other in pairs(runs, ours, theirs):
            unit = share if one.metric == "win_rate" else amount
            ends = one.ends(), other.ends()
            margin = close * abs(ends[1].mean())
            command = f"{one.command}; {other.command}"
            yield Finding(_task(one), ends[0] - ends[1], margin, unit, command)

    return findings


def _task(run):
    return f"{run.env}, {run.preset}, {pictures.steps(run.config['total_steps'])}"


def of(name: str, **keys) -> Callable:
    """Chooses runs by their way of sharing, and by keys of it."""
    return lambda run: (
        run.sharing == name
        and all(run.config["sharing"].get(key) == value for key, value in keys.items())
    )


def cheaper(runs: Iterable[Kept]) -> Iterable[Finding]:
    """How much less of the separate networks' actors adapters and their backbone are."""
    for one, other in pairs(runs, of("ps_lora"), of("nps")):
        counts = [_actors(run.summary["parameters"]) for run in (one, other)]
        saved = np.array([1 - counts[0] / counts[1]])
        command = f"{one.command}; {other.command}"
        yield Finding(_task(one), saved, 0.0, share, command, exact=True)


def _actors(counts):
    return sum(count for name, count in counts.items() if name.startswith("actor"))


def whole(run: Kept) -> bool:
    """Whether adapters are on all layers."""
    return run.sharing == "ps_lora" and len(run.config["sharing"]["targets"]) >= 5


def part(run: Kept) -> bool:
    return run.sharing == "ps_lora" and not whole(run)


def early(runs: Iterable[Kept]) -> Iterable[Finding]:
    """The earliest switch against the latest of one task."""
    adapted = [run for run in runs if run.finished and whole(run)]
    adapted = [run for run in adapted if run.name not in evidence.SUPERSEDED]
    for _, group in groupby(sorted(adapted, key=lambda run: str(_same(run))), _same):
        members = sorted(group, key=lambda run: run.config["switch_at"])
        first, last = members[0], members[-1]
        if first.config["switch_at"] < last.config["switch_at"] and first.seeds == last.seeds:
            unit = share if first.metric == "win_rate" else amount
            command = f"{first.command}; {last.command}"
            yield Finding(_task(first), first.ends() - last.ends(), 0.0, unit, command)


def _kept_tables(name):
    """(path, rows by seed) of a kept figure's CSV, but for those of superseded runs."""
    for path in sorted(RESULTS.glob(f"*/{name}.csv")):
        if path.parent.name.endswith("ant_4x2"):
            continue
        rows = pictures.read_rows(path)
        seeds = sorted({int(row["seed"]) for row in rows})
        yield path, [[row for row in rows if int(row["seed"]) == seed] for seed in seeds]


def late(runs: Iterable[Kept]) -> Iterable[Finding]:
    """delta / shared norm of the last two linear layers, above that of the first three."""
    for path, seeds in _kept_tables("tables_10_13"):
        values = []
        for rows in seeds:
            ratio = {
                where: np.mean([
                    float(row["delta"]) / float(row["shared"]) for row in rows
                    if row["layer"] in layers
                ])
                for where, layers in LAYERS.items()
            }  # fmt: skip
            values.append(ratio["last"] - ratio["first"])
        command = path.read_text().splitlines()[0].removeprefix("# ")
        yield Finding(f"{seeds[0][0]['env']}", np.array(values), 0.0, plain, command)


LAYERS = {"first": ("linear_1", "linear_2", "linear_3"), "last": ("linear_6", "linear_7")}


def own(runs: Iterable[Kept]) -> Iterable[Finding]:
    """What a team earns with its own adapters, above the median of exchanged ones."""
    for path, seeds in _kept_tables("specialisation"):
        key = "win_rate" if seeds[0][0]["win_rate"] else "return"
        values = [
            _median(rows, "own", key) - _median(rows, "exchanged", key) for rows in seeds
        ]  # fmt: skip
        command = path.read_text().splitlines()[0].removeprefix("# ")
        unit = share if key == "win_rate" else amount
        yield Finding(f"{seeds[0][0]['env']}", np.array(values), 0.0, unit, command)


def _median(rows, team, key):
    return float(np.median([float(row[key]) for row in rows if row["team"] == team]))


LORA = "python -m experiments.figure_2 cells=ant_4x2/mappo/ps+nps+ps_lora+shared_lora seeds=3"
ABLATED = "python -m experiments.figure_4 cells=ant_4x2/mappo seeds=3"
# (claim, what is compared, findings, command that would make runs for it)
CLAIMS: tuple[tuple[str, str, Callable, str], ...] = (
    ("LoRASA beats full sharing", "PS+LoRA - PS", compared(of("ps_lora"), of("ps")), LORA),
    (
        "It matches separate networks",
        f"PS+LoRA - NPS, above -{CLOSE:.0%} of NPS",
        compared(of("ps_lora"), of("nps"), CLOSE), LORA,
    ),
    ("It needs a fraction of their parameters", "1 - PS+LoRA / NPS, actors", cheaper, LORA),
    (
        "Rank 8 is enough",
        f"rank 8 - rank 64, above -{CLOSE:.0%} of rank 64",
        compared(of("ps_lora", rank=8), of("ps_lora", rank=64), CLOSE), ABLATED,
    ),
    ("Adapters on all layers are best", "all - a part", compared(whole, part), ABLATED),
    ("Switch before the plateau", "earliest switch - latest", early, ABLATED),
    (
        "Deltas are small, and larger in late layers",
        "delta / shared norm, last layers - first", late,
        "python -m experiments.tables_10_13 cells=ant_4x2/mappo seeds=3",
    ),
    (
        "Better than a frozen backbone with one adapter for all",
        "PS+LoRA - shared LoRA", compared(of("ps_lora"), of("shared_lora")), LORA,
    ),
    (
        "Agents' adapters cannot be exchanged", "own - exchanged (median)", own,
        "python -m experiments.specialisation cells=ant_4x2/mappo seeds=3",
    ),
)  # fmt: skip


def claims(runs: Iterable[Kept]) -> str:
    """A Markdown table with a row for every claim and task."""
    runs = list(runs)
    head = ("claim", "difference", "task", "seed by seed", "mean, 95 % interval", "verdict")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    sources = []
    for claim, what, findings, command in CLAIMS:
        found = list(findings(runs))
        for one in found:
            cells = (claim, what, one.task, *_seeds_and_mean(one), one.verdict)
            lines.append("| " + " | ".join(cells) + " |")
            sources.append((claim, one.task, one.command))
        if not found:
            lines.append(f"| {claim} | {what} | - | - | - | undecided: no runs yet |")
            sources.append((claim, "no runs yet; they would come from", command))
    lines += ["", "Commands:", ""]
    for claim, task, command in sources:
        lines += [f"- {claim} ({task})", *(f"    - `{part}`" for part in command.split("; "))]
    return "\n".join(lines)


def _seeds_and_mean(finding):
    if finding.exact:
        return "counted", finding.unit(float(finding.differences[0]))
    seeds = " / ".join(map(finding.unit, finding.differences))
    mean = finding.unit(float(finding.differences.mean()))
    if finding.interval is not None:
        mean += f" ({' to '.join(map(finding.unit, map(float, finding.interval)))})"
    return seeds, mean


def between(text: str, mark: str, table: str) -> str:
    """A page with a table between its marks `<!-- MARK -->` and `<!-- end of MARK -->`."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    pattern = f"({re.escape(begin)}\n).*?(\n{re.escape(end)})"
    return re.sub(pattern, lambda m: f"{m[1]}\n{table}\n{m[2]}", text, flags=re.S)


TABLES = {"results.md": ("benchmark", benchmark), "claims.md": ("claims", claims)}


def pages() -> dict[Path, str]:
    """{page: its text as it must be}."""
    runs = evidence.kept()
    return {
        DOCS / page: between((DOCS / page).read_text(encoding="utf-8"), mark, table(runs))
        for page, (mark, table) in TABLES.items()
    }


if __name__ == "__main__":
    for path, text in pages().items():
        write_atomically(path, text)
        print(path)
