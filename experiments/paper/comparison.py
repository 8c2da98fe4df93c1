"""Ways of sharing compared by their learning curves: tables, intervals over seeds, pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import pictures
from experiments.cells import Request
from experiments.learning import Learned
from lorasa_jax.analysis import curves
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.values import listed, whole_number

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


def smoothed(values: np.ndarray) -> np.ndarray:
    """Values [..., step] as centred means of a tenth of the evaluations, fewer at the ends."""
    count = values.shape[-1]
    half = count // 20
    return np.stack(
        [values[..., max(0, j - half) : j + half + 1].mean(-1) for j in range(count)], axis=-1
    )


def draw(axes, learned: Sequence[Learned], metric: str, labels=None, colours=None, last=5) -> None:
    """Means over seeds, smoothed, over faint seeds; ends with intervals at the right.

    The band is the mean's 95 % bootstrap interval; of fewer than three seeds every evaluation is a
    point instead. A dotted line is the level of the untrained team, a dashed one where a phase
    after the first begins.
    """
    ends = []
    for i, one in enumerate(learned):
        colour = pictures.colour_of(one.cell.sharing) if colours is None else colours[i]
        scores = one.scores(metric)
        few = len(scores) < curves.LEAST_SEEDS
        for seed in scores:
            axes.plot(
                one.steps, seed, "." if few else "-", color=colour, lw=0.5, ms=2.5, alpha=0.35
            )
        line = smoothed(scores)
        if not few:
            low, high = curves.mean_interval(line)
            axes.fill_between(one.steps, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(one.steps, line.mean(0), color=colour, lw=1.6)
        name = label(one) if labels is None else labels[i]
        ends.append((scores[:, -last:].mean(-1), name, colour))
    _levels(axes, learned, metric)
    _switches(axes, learned, colours)
    _ends(axes, ends, metric)
    axes.margins(x=0.01)
    axes.xaxis.set_major_formatter(lambda x, _: pictures.steps(x))


def _levels(axes, learned, metric):
    """The untrained team's level, and the axis from there."""
    first = [one.scores(metric)[:, 0].mean() for one in learned if one.steps[0] == 0]
    level = float(np.mean(first)) if first else None
    if metric == "win_rate":
        axes.set_ylim(-0.03, 1.03)
    else:
        values = np.concatenate([np.ravel(one.scores(metric)) for one in learned])
        axes.set_ylim(*curves.limits(level, values))
    if level is not None:
        axes.axhline(level, color="0.5", ls=":", lw=0.9)
        axes.annotate(
            "untrained", (0.0, level), (2, 2), xycoords=("axes fraction", "data"), fontsize=6,
            textcoords="offset points", color="0.4", va="bottom",
        )  # fmt: skip


def _switches(axes, learned, colours):
    switches = {}
    for i, one in enumerate(learned):
        colour = pictures.colour_of(one.cell.sharing) if colours is None else colours[i]
        for step, phase in one.phases:
            switches.setdefault((step, phase), []).append(colour)
    for (step, phase), here in switches.items():
        axes.axvline(step, color=here[0] if len(here) == 1 else "0.5", ls="--", lw=0.8)
        axes.annotate(
            phase, (step, 1.0), (2, -1), xycoords=("data", "axes fraction"),
            textcoords="offset points", color="0.4", fontsize=6, va="top",
        )  # fmt: skip


def _ends(axes, ends, metric):
    """What each way of sharing ends with, at the height of its line and clear of the others."""
    box, (bottom, top) = axes.get_position(), axes.get_ylim()
    height = axes.figure.get_figheight() * 72 * max(box.height, 0.5)  # points
    narrow = axes.figure.get_figwidth() * box.width < 3.5
    gap = (top - bottom) * (17 if narrow else 9.5) / height
    ordered = sorted(ends, key=lambda end: end[0].mean())
    places = [float(values.mean()) for values, *_ in ordered]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    above = max(0.0, places[-1] - top) if places else 0.0
    for i in reversed(range(len(places))):
        limit = top if i == len(places) - 1 else places[i + 1] - gap
        places[i] = min(places[i], limit) if above else places[i]
    for (values, name, colour), place in zip(ordered, places, strict=True):
        text = f"{name}{chr(10) if narrow else '  '}{told(values, metric)}"
        axes.annotate(
            text, (1.0, place), (5, 0), xycoords=("axes fraction", "data"), color=colour,
            textcoords="offset points", fontsize=6.5, va="center", annotation_clip=False,
        )  # fmt: skip


def told(values: np.ndarray, metric: str = "return") -> str:
    """A mean over seeds, with its interval where there are enough of them."""
    form = "{:.1%}" if metric == "win_rate" else "{:,.3g}" if abs(values.mean()) < 10 else "{:,.0f}"
    interval = curves.mean_interval(values)
    text = form.format(values.mean())
    if interval is None:
        return text
    return f"{text} ({form.format(interval[0])} to {form.format(interval[1])})"


def caption_of(learned: Sequence[Learned], last: int) -> str:
    """What a figure of learning curves shows, and of how many seeds."""
    counts = sorted({len(one.seeds) for one in learned})
    text = (
        f"n = {listed([str(count) for count in counts])} seed{'s' * (counts != [1])}. Thick: mean "
    )
    text += "over seeds of greedy evaluations, smoothed over a tenth of them; faint: every seed. "
    if counts[-1] >= curves.LEAST_SEEDS:
        text += "Band and brackets: 95 % bootstrap interval of the mean over seeds. "
    if counts[0] < curves.LEAST_SEEDS:
        text += f"No interval of fewer than {curves.LEAST_SEEDS} seeds. "
    return text + f"At the right: means of the last {last} evaluations."


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
    last = whole_number(request.options.get("last", 1), "last")
    wide = max(6.0 / len(envs), 3.6)  # inches, of which a picture has 150 pixels
    drawn, axes = pictures.figure(len(algos), len(envs), wide, 0.28 * wide + 1.5)
    tables: tuple[list, list] = ([], [])
    for (i, algo), (j, env) in ((a, b) for a in enumerate(algos) for b in enumerate(envs)):
        here = [one for one in learned if _panel(one) == (env, algo)]
        panel = axes[i, j]
        if not here:
            panel.set_axis_off()
            continue
        shown = metric or metric_of(here)
        draw(panel, here, shown, colours=[colours[label(one)] for one in here], last=last)
        panel.set_title(f"{env}, {algo.upper()}", loc="left")
        panel.set_xlabel("environment steps")
        panel.set_ylabel("win rate" if shown == "win_rate" else "episode return")
        tables[0].extend(summary_table(here, shown))
        tables[1].extend(comparison_table(here, shown, last))
    pictures.caption(drawn, caption_of(learned, last))
    paths = [
        pictures.write_rows(request, runs_table(learned)),
        pictures.write_rows(request, tables[0], f"{request.figure}_summary"),
    ]
    if tables[1]:
        paths.append(pictures.write_rows(request, tables[1], f"{request.figure}_improvement"))
    return [*paths, *pictures.save(request, drawn)]
