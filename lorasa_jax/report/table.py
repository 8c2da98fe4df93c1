"""The report's table: what runs came to, one column or row a run."""

import math
from html import escape

import numpy as np

from lorasa_jax.analysis.curves import LEAST_SEEDS, mean_interval
from lorasa_jax.report.story import Story
from lorasa_jax.values import flat

_MEASURES = (
    "Final return", "of", "per seed", "Win rate", "wins per seed", "Best return",
    "Spread of actions",
    "Neural diversity",
    "Phases", "Actor parameters", "Actor adapters", "Critic parameters",
    "Critic adapters", "Speed",
)  # fmt: skip
_COMPARED = (
    "n", "Win rate", "Final return", "To the first", "Neural diversity", "Phases",
    "Actor parameters", "Actor adapters", "Speed",
)  # fmt: skip
# Keys that tell no run from another.
_UNTOLD = ("out", "seed", "num_seeds", "logger", "resume", "init_from", "keep_at")


def results(stories: list[Story]) -> str:
    """A table of one column a run; what no run has is left out."""
    if len(stories) > 1:
        return _compared(stories)
    column = measures(stories[0])
    rows = "".join(
        f'<tr><th scope="row">{name}</th><td>{escape(column[name])}</td></tr>'
        for name in _MEASURES
        if name in column
    )
    return f'<div class="scroll"><table class="one"><tbody>{rows}</tbody></table></div>'


def _compared(stories):
    """A row a run, best first within an environment; what no run has is left out."""
    labels = dict(zip(map(id, stories), labels_of(stories), strict=True))
    ordered = sorted(stories, key=lambda s: (s.summary["env"], -_mean(_headline(s)[1])))
    columns = [
        {"n": str(len(s.summary["seeds"])), **_difference(s, ordered), **measures(s)}
        for s in ordered
    ]
    names = [name for name in _COMPARED if any(name in column for column in columns)]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(labels[id(story)])}</th>'
        + "".join(f"<td>{escape(column.get(name, '–'))}</td>" for name in names)
        + "</tr>"
        for story, column in zip(ordered, columns, strict=True)
    )
    table = f"<table><thead><tr><th>run</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return (
        f'<div class="scroll">{table}</div><p class="quiet">Means over n seeds at the end; in '
        f"brackets their 95 % bootstrap interval, where there are {LEAST_SEEDS} seeds or more. "
        "“To the first” is the difference from the first run of the same environment, seed by seed "
        "where both have the same seeds.</p>"
    )


def labels_of(stories: list[Story]) -> list[str]:
    """Every run by what tells it from the others; by its folder where nothing else does."""
    configs = [flat(story.config) for story in stories]
    first = ("env.name", "algo.name", "sharing.name", "preset")
    known = list(dict.fromkeys(key for config in configs for key in config))
    differing = [key for key in known if len({str(config.get(key)) for config in configs}) > 1]
    named = [key for key in first if key in differing]
    texts = [" ".join(str(config[key]) for key in named) for config in configs]
    for key in (key for key in differing if key not in (*first, *_UNTOLD)):
        if len(set(texts)) == len(texts):
            break
        more = [
            f"{text} {key}={config.get(key)}" for text, config in zip(texts, configs, strict=True)
        ]
        texts = more if len(set(more)) > len(set(texts)) else texts
    return [
        text.strip() if texts.count(text) == 1 else story.name
        for text, story in zip(texts, stories, strict=True)
    ]


def _headline(story):
    """(score, every seed's at the end) that runs are compared by."""
    score = "win_rate" if "win_rate" in story.summary else "eval_return"
    return score, np.array(story.summary[f"{score}_per_seed"], float)


def _mean(values):
    """The mean of the seeds, least of all where one of them has none."""
    return float(values.mean()) if np.isfinite(values).all() else -math.inf


def _difference(story, ordered):
    """{"To the first": ...} of a run that is not the first of its environment."""
    first = next(s for s in ordered if s.summary["env"] == story.summary["env"])
    if story is first:
        return {}
    (score, ours), (_, theirs) = _headline(story), _headline(first)
    form = _share if score == "win_rate" else amount
    if story.summary["seeds"] != first.summary["seeds"]:
        return {"To the first": form(float(ours.mean() - theirs.mean()))}
    return {"To the first": _told(np.subtract(ours, theirs), form)}


def measures(story: Story) -> dict[str, str]:
    """What the table says of one run."""
    summary, cells = story.summary, {}
    cells["Final return"] = _told(summary["eval_return_per_seed"], amount)
    count = len(summary["seeds"])
    cells["of"] = f"n = {count} seed{'s' * (count > 1)}"
    if count < LEAST_SEEDS:
        cells["of"] += ": too few for an interval"
    if len(summary["seeds"]) > 1:
        cells["per seed"] = " · ".join(map(amount, summary["eval_return_per_seed"]))
    if "win_rate" in summary:
        cells["Win rate"] = _told(summary["win_rate_per_seed"], _share)
        if len(summary["seeds"]) > 1:
            cells["wins per seed"] = " · ".join(f"{x:.0%}" for x in summary["win_rate_per_seed"])
    if "best_eval_return" in summary:
        best, step = summary["best_eval_return"], summary["best_eval_step"]
        cells["Best return"] = amount(best) + ("" if step is None else f" at {step:,}")
    if "action_std" in story.curves:
        spread = story.curves["action_std"]["median"][-1]
        cells["Spread of actions"] = "–" if spread is None else f"{spread:.2f}"
    if len(story.agents) > 1:
        cells["Neural diversity"] = f"{story.snd:.3g}"
    if story.phases:
        cells["Phases"] = " · ".join(f"{name} from {step:,}" for step, name in story.phases)
    cells.update(_parameters(summary["parameters"]))
    if summary.get("steps_per_second") is not None:
        cells["Speed"] = f"{summary['steps_per_second']:,.0f} steps/s"
    return cells


def _told(values, form):
    """A mean over seeds and, of enough of them, its interval."""
    values = np.array(values, float)
    if not np.isfinite(values).all():
        return "–"
    interval = mean_interval(values)
    text = form(float(np.mean(values)))
    return text if interval is None else f"{text} ({form(interval[0])} to {form(interval[1])})"


def _share(value):
    return f"{value:.1%}"


def amount(value: float | None) -> str:
    """A number with commas; a dash for what is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _parameters(counts):
    """{what: how many}, one policy's of one seed; adapters apart from what they adapt."""
    totals = {}
    for name, count in counts.items():
        role, bank = name.split()
        what = f"{role.capitalize()} {'adapters' if bank == 'adapters' else 'parameters'}"
        totals[what] = totals.get(what, 0) + count
    return {what: f"{count:,}" for what, count in totals.items()}
