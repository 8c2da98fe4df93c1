"""Learning curves over seeds: read from runs, summed up, compared, drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments import pictures, training
from experiments.cells import Cell, Request
from lorasa_jax import reporting, runs
from lorasa_jax.analysis import curves
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.replay.scene import palette
from lorasa_jax.values import flat, listed, whole

RESAMPLES = 2000
# What the figures of learning curves take besides the keys of all figures.
OWN = {"run": "", "last": "5"}


class Learned(NamedTuple):
    """A cell's evaluations: steps [step], returns and, on maps, shares of wins [seed, step].

    switch is the step at which adapters began, None where there are none or seeds differ in it.
    """

    cell: Cell
    seeds: tuple[int, ...]
    steps: np.ndarray
    returns: np.ndarray
    wins: np.ndarray | None
    switch: int | None

    def scores(self, metric: str) -> np.ndarray:
        """[seed, step] of `return` or `win_rate`."""
        return self.wins if metric == "win_rate" else self.returns


def of(request: Request) -> list[Learned] | None:
    """The curves of the runs in `run=FOLDER,...`, or else of a figure's cells.

    Cells are trained where need be. None where only commands were asked for.
    """
    whole(request.own["last"], "last")
    if request.own["run"]:
        return given([Path(path) for path in request.own["run"].split(",")])
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
    found = []
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
        switches = {part.switch for part in parts}
        switch = switches.pop() if len(switches) == 1 else None
        found.append(Learned(parts[0].cell, tuple(seeds), parts[0].steps, returns, wins, switch))
    return found


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
        step = whole(step, "the step of init_from")
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
    if not steps or any(sorted(found) != steps for found in table.values()):
        raise ConfigError(f"{out} has lost evaluations; delete it and run it again.")

    def values(key):
        return np.array(
            [[table[seed][step][key] for step in steps] for seed in config.seeds], float
        )

    wins = values("win_rate") if "win_rate" in rows[0] else None
    switch = reporting.switched_at(rows, config)
    return Learned(cell, config.seeds, np.array(steps), values("eval_return"), wins, switch)


def metric_of(learned: Sequence[Learned]) -> str:
    """What the paper draws: wins where there are any, else returns."""
    return "return" if any(one.wins is None for one in learned) else "win_rate"


def runs_table(learned: Sequence[Learned]) -> list[dict]:
    """A row for every evaluation of every seed."""
    return [
        {
            **_cell(one),
            "seed": seed,
            "env_steps": int(step),
            "return": one.returns[i, j],
            "win_rate": "" if one.wins is None else one.wins[i, j],
        }
        for one in learned
        for i, seed in enumerate(one.seeds)
        for j, step in enumerate(one.steps)
    ]


def summary_table(learned: Sequence[Learned], metric: str) -> list[dict]:
    """A row for every evaluation: median and quartiles, interquartile mean and its interval."""
    rows = []
    for one in learned:
        scores = one.scores(metric)
        found = curves.summary(scores)
        low, high = curves.iqm_interval(
            scores[None], rng=np.random.default_rng(0), resamples=RESAMPLES
        )
        for j, step in enumerate(one.steps):
            rows.append(
                {
                    **_cell(one),
                    "metric": metric,
                    "env_steps": int(step),
                    "seeds": len(scores),
                    "median": found.median[j],
                    "lower_quartile": found.lower[j],
                    "upper_quartile": found.upper[j],
                    "iqm": found.iqm[j],
                    "iqm_low": low[j],
                    "iqm_high": high[j],
                }
            )
    return rows


def comparison_table(learned: Sequence[Learned], metric: str, last: int = 1) -> list[dict]:
    """How probably the row's way of sharing ends above another's, for all pairs of one panel.

    What a seed ends with is the mean of its `last` evaluations. Where both ways have the same
    seeds, `difference` is the mean over seeds of one's end minus the other's: adapters that began
    from the shared run are compared with that very run.
    """
    rows = []
    for ours in learned:
        for theirs in learned:
            if ours is theirs or _panel(ours) != _panel(theirs):
                continue
            one, other = (x.scores(metric)[None, :, -last:].mean(-1) for x in (ours, theirs))
            low, high = curves.bootstrap(
                curves.probability_of_improvement,
                one,
                other,
                rng=np.random.default_rng(0),
                resamples=RESAMPLES,
            )
            rows.append(
                {
                    **_cell(ours),
                    "over": label(theirs),
                    "metric": metric,
                    "probability": float(curves.probability_of_improvement(one, other)),
                    "low": float(low),
                    "high": float(high),
                    **_difference(ours, theirs, one, other),
                }
            )
    return rows


def _difference(ours, theirs, one, other):
    if sorted(ours.seeds) != sorted(theirs.seeds):
        return dict.fromkeys(("difference", "difference_low", "difference_high"), "")
    between = one[:, np.argsort(ours.seeds)] - other[:, np.argsort(theirs.seeds)]
    low, high = curves.bootstrap(
        lambda x: x.mean(), between, rng=np.random.default_rng(0), resamples=RESAMPLES
    )
    means = between.mean(), low, high
    names = "difference", "difference_low", "difference_high"
    return {name: float(mean) for name, mean in zip(names, means, strict=True)}


def label(one: Learned) -> str:
    cell = one.cell
    return " ".join([pictures.name_of(cell.sharing), *cell.keys])


def _cell(one):
    cell = one.cell
    return {
        "env": cell.env,
        "algo": cell.algo,
        "sharing": cell.sharing,
        "keys": " ".join(cell.keys),
    }


def _panel(one):
    return one.cell.env, one.cell.algo


def draw(axes, learned: Sequence[Learned], metric: str, labels=None, colours=None) -> None:
    """Median and quartiles over seeds into one panel; a small mark where adapters begin."""
    for i, one in enumerate(learned):
        colour = pictures.colour_of(one.cell.sharing) if colours is None else colours[i]
        scores = one.scores(metric)
        found = curves.summary(scores)
        name = label(one) if labels is None else labels[i]
        axes.plot(one.steps, found.median, color=colour, lw=1.2, label=name)
        if len(scores) > 1:
            axes.fill_between(one.steps, found.lower, found.upper, color=colour, alpha=0.18, lw=0)
        if one.switch is not None:
            at = np.interp(one.switch, one.steps, found.median)
            axes.plot([one.switch], [at], "o", ms=3.5, color=colour)
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)


def colours_of(learned: Sequence[Learned]) -> dict:
    """{label: colour}: a way of sharing's own, or where one of them has several, all different."""
    labels = {label(one): one.cell.sharing for one in learned}
    if len(set(labels.values())) == len(labels):
        return {name: pictures.colour_of(scheme) for name, scheme in labels.items()}
    return dict(zip(labels, palette(len(labels)), strict=True))


def panels(learned: Sequence[Learned]) -> tuple[list[str], list[str]]:
    """(algorithms, environments) in the order in which cells name them: rows and columns."""
    cells = [one.cell for one in learned]
    return list(dict.fromkeys(c.algo for c in cells)), list(dict.fromkeys(c.env for c in cells))


@pictures.styled
def figure_of(
    request: Request, learned: Sequence[Learned], metric: str | None = None
) -> list[Path]:
    """Draws a panel per algorithm and environment, and writes all tables; returns the paths."""
    algos, envs = panels(learned)
    colours = colours_of(learned)
    drawn, axes = pictures.figure(len(algos), len(envs))
    tables: tuple[list, list] = ([], [])
    for (i, algo), (j, env) in ((a, b) for a in enumerate(algos) for b in enumerate(envs)):
        here = [one for one in learned if _panel(one) == (env, algo)]
        panel = axes[i, j]
        if not here:
            panel.set_axis_off()
            continue
        shown = metric or metric_of(here)
        draw(panel, here, shown, colours=[colours[label(one)] for one in here])
        panel.set_title(f"{env}, {algo.upper()}")
        panel.set_xlabel("environment steps")
        panel.set_ylabel("win rate" if shown == "win_rate" else "episode return")
        if shown == "win_rate":
            panel.set_ylim(-0.03, 1.03)
        tables[0].extend(summary_table(here, shown))
        last = whole(request.own.get("last", 1), "last")
        tables[1].extend(comparison_table(here, shown, last))
    handles = {
        text: handle
        for panel in axes.flat
        for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    entry = 0.5 + 0.065 * max(map(len, handles))  # inches that the longest one takes
    columns = min(len(handles), 6, max(1, int(drawn.get_figwidth() / entry)))
    drawn.legend(handles.values(), handles, loc="outside lower center", ncols=columns, fontsize=8)
    paths = [
        pictures.write_rows(request, runs_table(learned)),
        pictures.write_rows(request, tables[0], f"{request.figure}_summary"),
    ]
    if tables[1]:
        paths.append(pictures.write_rows(request, tables[1], f"{request.figure}_improvement"))
    return [*paths, *pictures.save(request, drawn)]
