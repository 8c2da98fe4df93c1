"""Learning curves over seeds, read from runs; comparison.py sums them up and draws them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import training
from experiments.cells import Cell, Request
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import reporting, runs
from lorasa_jax.values import flat, listed, whole_number

# What the figures of learning curves take besides the keys of all figures.
OPTIONS = {"run": "", "last": "5"}


class Learned(NamedTuple):
    """A cell's evaluations: steps [step], returns and, on maps, shares of wins [seed, step].

    phases: (step, name) of every phase after the first; none where seeds differ in them.
    """

    cell: Cell
    seeds: tuple[int, ...]
    steps: np.ndarray
    returns: np.ndarray
    wins: np.ndarray | None
    phases: tuple[tuple[int, str], ...]

    def scores(self, metric: str) -> np.ndarray:
        """[seed, step] of `return` or `win_rate`."""
        return self.wins if metric == "win_rate" else self.returns


def of(request: Request) -> list[Learned] | None:
    """The curves of the runs in `run=FOLDER,...`, or else of a figure's cells.

    Cells are trained where need be. None where only commands were asked for.
    """
    whole_number(request.options["last"], "last")
    if request.options["run"]:
        return given([Path(path) for path in request.options["run"].split(",")])
    trainings = training.ready(request)
    return trainings and [read(one.cell, one.out, one.config) for one in trainings]


def given(folders: Sequence[Path]) -> list[Learned]:
    """The curves of finished runs; those that differ in nothing but seeds are one cell's.

    Raises:
      ConfigError: a run is unfinished or damaged, a seed comes twice, or runs of one cell were
        evaluated at other steps.
    """
    groups: dict[tuple, list[tuple[Path, Config]]] = {}
    for folder in folders:
        runs.summary(folder)
        config = runs.configured(folder)
        groups.setdefault(tuple(sorted(_kind(config).items())), []).append((folder, config))
    learned = []
    for kind, members in groups.items():
        config = members[0][1]
        names = config.env["name"], config.algo.name, config.sharing["name"]
        same = [dict(other) for other in groups if _names(dict(other)) == _names(dict(kind))]
        keys = [
            f"{key}={value}"
            for key, value in kind
            if any(other.get(key) != value for other in same)
        ]
        parts = [read(Cell(*names, tuple(keys)), *member) for member in members]
        seeds = [seed for part in parts for seed in part.seeds]
        if len(set(seeds)) < len(seeds):
            raise ConfigError(
                f"run={listed(str(folder) for folder, _ in members)} has a seed twice; give every "
                "seed of a cell once."
            )
        if any(part.steps.tolist() != parts[0].steps.tolist() for part in parts):
            raise ConfigError(
                f"run={listed(str(folder) for folder, _ in members)} differ in the steps of their "
                "evaluations; give runs of one length and eval_every."
            )
        wins = None if parts[0].wins is None else np.concatenate([part.wins for part in parts])
        returns = np.concatenate([part.returns for part in parts])
        started = {part.phases for part in parts}
        phases = started.pop() if len(started) == 1 else ()
        learned.append(Learned(parts[0].cell, tuple(seeds), parts[0].steps, returns, wins, phases))
    return learned


def _kind(config):
    """What runs of one cell have in common: everything but seeds and where they began."""
    kind = flat(config.decisive())
    return {
        key: str(value)
        for key, value in kind.items()
        if key not in ("seed", "num_seeds", "init_from")
    }


def _names(kind):
    return kind["env.name"], kind["algo.name"], kind["sharing.name"]


def read(cell: Cell, out: Path, config: Config) -> Learned:
    """The evaluations of a finished run, and before its start those of the run it began from.

    Raises:
      ConfigError: the seeds were not evaluated at the same steps, as in a damaged file, or the
        run that it began from is gone.
    """
    rows = reporting.read_metrics(out)
    if config.init_from is not None:
        path, _, step = config.init_from.rpartition("@")
        step = whole_number(step, "the step of init_from")
        seeds = dict(zip(runs.configured(path).seeds, config.seeds, strict=True))
        rows = [
            {**row, "seed": seeds[row["seed"]]}
            for row in reporting.read_metrics(path)
            if row["env_steps"] <= step
        ] + [row for row in rows if row["env_steps"] > step]
    table: dict[int, dict[int, dict]] = {seed: {} for seed in config.seeds}
    for row in rows:
        table[row["seed"]][row["env_steps"]] = row
    steps = sorted(table[config.seeds[0]])
    if not steps or any(sorted(evaluated) != steps for evaluated in table.values()):
        raise ConfigError(f"{out} has lost evaluations; delete it and run it again.")

    def values(key):
        return np.array(
            [[table[seed][step][key] for step in steps] for seed in config.seeds], float
        )

    wins = values("win_rate") if "win_rate" in rows[0] else None
    phases = tuple(reporting.phase_starts(rows, config))
    return Learned(cell, config.seeds, np.array(steps), values("eval_return"), wins, phases)
