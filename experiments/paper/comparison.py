"""Ways of sharing compared by their learning curves: tables, intervals over seeds, pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import pictures
from experiments.cells import Request
from experiments.learning import Learned
from lorasa_jax.analysis import curves
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.values import whole_number

RESAMPLES = 2000


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
        summary = curves.summary(scores)
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
                    "median": summary.median[j],
                    "lower_quartile": summary.lower[j],
                    "upper_quartile": summary.upper[j],
                    "iqm": summary.iqm[j],
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
    """Median and quartiles over seeds into one panel; a small mark where phases begin."""
    for i, one in enumerate(learned):
        colour = pictures.colour_of(one.cell.sharing) if colours is None else colours[i]
        scores = one.scores(metric)
        summary = curves.summary(scores)
        name = label(one) if labels is None else labels[i]
        axes.plot(one.steps, summary.median, color=colour, lw=1.2, label=name)
        if len(scores) > 1:
            axes.fill_between(
                one.steps, summary.lower, summary.upper, color=colour, alpha=0.18, lw=0
            )
        for step, phase in one.phases:
            at = np.interp(step, one.steps, summary.median)
            axes.plot([step], [at], "o", ms=3.5, color=colour)
            if len(one.phases) > 1:  # one alone is the paper's switch
                axes.annotate(phase, (step, at), (0, 4), textcoords="offset points", fontsize=6)
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
        last = whole_number(request.options.get("last", 1), "last")
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
