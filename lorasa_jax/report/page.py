"""The report's page out of its stories: one HTML file that asks nothing of the network."""

import itertools
import json
import math
import re
from html import escape
from pathlib import Path

import numpy as np
import yaml

from lorasa_jax.analysis.curves import LEAST_SEEDS, mean_interval
from lorasa_jax.report import panels
from lorasa_jax.report.story import Story, grouped
from lorasa_jax.values import flat, listed

_TEMPLATE = Path(__file__).with_name("page.html")
TITLES = {
    "eval_return": "Return", "win_rate": "Win rate",
    "action_std": "Standard deviation of actions while training",
}  # fmt: skip
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
# What the distance between two policies is, by whether their actions have a spread.
_DISTANCES = {
    False: "1-Wasserstein distance of their actions, any two of which are 1 apart",
    True: "1-Wasserstein distance of their actions before tanh, summed over an agent's actions",
}


def page(stories: list[Story]) -> str:
    """The whole page, seeds of one configuration together; charts get ids in their order."""
    counter = itertools.count(1)

    def chart(text):
        return panels.unique(text, f"c{next(counter)}")

    runs, stories = stories, grouped(stories)
    several = len(stories) > 1
    heading = f"{len(stories)} runs compared" if several else stories[0].name
    body = [
        f"<header><h1>{escape(heading)}</h1>{_about(stories)}</header>",
        f'<section id="results"><h2>Results</h2>{results(stories)}</section>',
        f'<section id="curves"><h2>Learning curves</h2>{learning(stories, chart)}</section>',
    ]
    for story, label in zip(stories, labels_of(stories), strict=True):
        title = f"<h2>{escape(label)}</h2>" if several else ""
        if several and label != story.name:
            title += f'<p class="quiet">{escape(story.name)}</p>'
        level = "h3" if several else "h2"
        body.append(f"<article>{title}{one(story, chart, level)}</article>")
    data = json.dumps({"runs": [run.numbers() for run in runs]}, separators=(",", ":"))
    parts = escape(heading), "\n".join(body), data.replace("<", "\\u003c")
    around = re.split("__(?:TITLE|BODY|DATA)__", _TEMPLATE.read_text(encoding="utf-8"))
    return "".join(itertools.chain(*zip(around, (*parts, ""), strict=True)))


def _about(stories):
    """One line: what was trained, and how."""
    if len(stories) > 1:
        names = ", ".join(dict.fromkeys(story.summary["env"] for story in stories))
        return f'<p class="quiet">{escape(names)}</p>'
    summary = stories[0].summary
    seeds = summary["seeds"]
    parts = [
        f"{summary['algo']} with {summary['sharing']} on {summary['env']}",
        f"{summary['env_steps']:,} environment steps",
        f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {listed([str(seed) for seed in seeds])}",
    ]
    return f'<p class="quiet">{escape(" · ".join(parts))}</p>'


# --- results -------------------------------------------------------------------------------


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
    form = _share if score == "win_rate" else _amount
    if story.summary["seeds"] != first.summary["seeds"]:
        return {"To the first": form(float(ours.mean() - theirs.mean()))}
    return {"To the first": _told(np.subtract(ours, theirs), form)}


def measures(story: Story) -> dict[str, str]:
    """What the table says of one run."""
    summary, cells = story.summary, {}
    cells["Final return"] = _told(summary["eval_return_per_seed"], _amount)
    count = len(summary["seeds"])
    cells["of"] = f"n = {count} seed{'s' * (count > 1)}"
    if count < LEAST_SEEDS:
        cells["of"] += ": too few for an interval"
    if len(summary["seeds"]) > 1:
        cells["per seed"] = " · ".join(map(_amount, summary["eval_return_per_seed"]))
    if "win_rate" in summary:
        cells["Win rate"] = _told(summary["win_rate_per_seed"], _share)
        if len(summary["seeds"]) > 1:
            cells["wins per seed"] = " · ".join(f"{x:.0%}" for x in summary["win_rate_per_seed"])
    if "best_eval_return" in summary:
        best, step = summary["best_eval_return"], summary["best_eval_step"]
        cells["Best return"] = _amount(best) + ("" if step is None else f" at {step:,}")
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


def _amount(value):
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


# --- curves --------------------------------------------------------------------------------


def learning(stories: list[Story], chart) -> str:
    """One set of curves for every environment; all its runs together."""
    parts = []
    colours = panels.run_colours(len(stories))
    caption = _caption(stories)
    environments = dict.fromkeys(story.summary["env"] for story in stories)
    labels = dict(zip(map(id, stories), labels_of(stories), strict=True))
    for env in environments:
        pairs = zip(stories, colours, strict=True)
        env_stories = [(s, c) for s, c in pairs if s.summary["env"] == env]
        runs = [{**story.curves, "phases": story.phases} for story, _ in env_stories]
        scores = [score for score in TITLES if all(score in run for run in runs)]
        wide = panels.WIDE if len(scores) == 1 else panels.HALF
        env_colours = [colour for _, colour in env_stories]
        figures = "".join(_curve(runs, score, env_colours, chart, wide) for score in scores)
        if len(environments) > 1:
            parts.append(f"<h3>{escape(env)}</h3>")
        if len(env_stories) > 1:
            items = "".join(
                f'<li><i style="background:{c}"></i>{escape(labels[id(s)])}</li>'
                for s, c in env_stories
            )
            parts.append(f'<ul class="legend">{items}</ul>')
        kind = "broad" if len(scores) == 1 else "pair"
        parts.append(f'<div class="figures {kind}">{figures}</div>')
    signs = [sign for story in stories for sign in story.summary.get("warnings", ())]
    warnings = "".join(f"<p>Warning: {escape(sign)}</p>" for sign in signs)
    return f'<p class="quiet">{caption}.</p>' + warnings + "".join(parts)


def _caption(stories):
    """What lines, bands and points are, and of how many seeds and episodes."""
    counts = sorted({len(story.summary["seeds"]) for story in stories})
    seeds = f"n = {listed([str(count) for count in counts])} seed{'s' * (counts != [1])}"
    caption = f"Greedy episodes, {seeds}"
    if counts[-1] >= LEAST_SEEDS:
        caption += "; the line is the mean over seeds, the band its 95 % bootstrap interval"
    if counts[0] < LEAST_SEEDS:
        caption += (
            f"; points are single evaluations, too few seeds (under {LEAST_SEEDS}) for a band"
        )
    return caption


def _curve(runs, score, colours, chart, wide):
    narrow, wide = (
        chart(panels.curves(runs, score, colours, width=width)).replace(
            'class="chart"', f'class="chart {name}"'
        )
        for width, name in ((panels.NARROW, "narrow"), (wide, "wide"))
    )
    return f"<figure><figcaption><h4>{TITLES[score]}</h4></figcaption>{narrow}{wide}</figure>"


# --- one run -------------------------------------------------------------------------------


def one(story: Story, chart, level: str) -> str:
    """The sections of one run under headings of a level."""
    seed_note = f" (seed {story.policy})" if len(story.summary["seeds"]) > 1 else ""
    ids = " under its own id" if story.config["env"]["agent_ids"] else ""
    parts = [
        f"<{level}>Who the agents became</{level}>",
        f'<p class="quiet">The policies at step {story.step:,}{seed_note}, each{ids} on the same '
        f"{story.observations:,} joint observations, met while they played together.</p>",
        f'<div class="figures pair">{_distances(story, chart)}{_norms(story, chart)}</div>',
        f'<div class="figures pair">{_ranks(story, chart)}</div>' if story.ranks else "",
        _activations(story, chart),
        f"<{level}>An episode</{level}>",
        _replay(story),
        f"<{level}>How it was made</{level}>",
    ]
    command = story.summary.get("command")
    if command:
        parts.append(f'<pre class="command">{escape(command)}</pre>')
    config = yaml.safe_dump(story.config, sort_keys=False)
    parts.append(
        f"<details><summary>The whole configuration</summary><pre>{escape(config)}</pre></details>"
    )
    return "\n".join(parts)


def _figure(title, text, svg):
    return f"<figure><figcaption><h4>{title}</h4>{text}</figcaption>{svg}</figure>"


def _distances(story, chart):
    if len(story.agents) < 2:
        return _figure("Distances", "There is one agent only.", "")
    text = (
        f"{_DISTANCES['action_std' in story.curves]}. Their mean, the System Neural Diversity, is "
        f"<b>{story.snd:.3g}</b>."
    )
    names = _short(story.agents)
    svg = panels.cells(
        np.array(story.distances, float), names, names, row_colours=story.colours,
        column_colours=story.colours, scale="distance", label="distances between agents' policies",
    )  # fmt: skip
    return _figure("How far agents are apart", text, chart(svg))


def _norms(story, chart):
    if story.norms is None:
        text = "This run has no adapters: its way of sharing has no LoRA phase."
        return _figure("What adapters add", text, "")
    text = "Frobenius norm of what every agent's adapter adds to each layer's weights."
    svg = panels.cells(
        np.array(story.norms, float), _short(story.agents), story.layers,
        row_colours=story.colours, scale="norm", label="norms of adapters by agent and layer",
    )  # fmt: skip
    return _figure("What adapters add", text, chart(svg))


def _ranks(story, chart):
    text = "Rank that training left to every agent's adapter of each layer."
    svg = panels.cells(
        np.array(story.ranks, float), _short(story.agents), story.rank_layers,
        row_colours=story.colours, scale="rank", label="ranks of adapters by agent and layer",
    )  # fmt: skip
    return _figure("Ranks of adapters", text, chart(svg))


def _activations(story, chart):
    """Folded away: how every layer's units differ from the shared policy's."""
    parts = []
    tall = float(np.clip(180 / len(story.agents), 7, 22))
    for layer, values in story.beyond.items():
        svg = panels.cells(
            np.array(values, float), _short(story.agents), [], row_colours=story.colours,
            scale="difference", label=f"activations of {layer}", cell_height=tall,
        )  # fmt: skip
        parts.append(_figure(f"Activations of {layer}", "", chart(svg)))
    what = "the backbone's alone" if story.norms is not None else "the mean of all agents"
    return (
        "<details><summary>Activations, layer by layer</summary>"
        '<p class="quiet">Mean absolute activation of every unit on the same observations, minus '
        f'{what}: blue is more, orange is less.</p><div class="figures">{"".join(parts)}</div>'
        "</details>"
    )


def _short(agents):
    return [agent.replace("_", " ") for agent in agents]


def _replay(story):
    if story.replay is None:
        return f'<p class="quiet">{escape(story.summary["env"])} has no pictures to replay.</p>'
    inside = story.replay.replace("&", "&amp;").replace('"', "&quot;")
    return f'<iframe title="Replay of an episode" loading="lazy" srcdoc="{inside}"></iframe>'
