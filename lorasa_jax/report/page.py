"""The report's page out of its stories: one HTML file that asks nothing of the network."""

import itertools
import json
import math
import re
from html import escape
from pathlib import Path

import numpy as np
import yaml

from lorasa_jax.report import panels
from lorasa_jax.report.story import Story

_TEMPLATE = Path(__file__).with_name("page.html")
TITLES = {
    "eval_return": "Return", "win_rate": "Win rate",
    "action_std": "Standard deviation of actions while training",
}  # fmt: skip
_MEASURES = (
    "Final return", "per seed", "Win rate", "wins per seed", "Best return", "Spread of actions",
    "Neural diversity",
    "Phases", "Actor parameters", "Actor adapters", "Critic parameters",
    "Critic adapters", "Speed",
)  # fmt: skip
_DISTANCES = {
    "wasserstein": "Wasserstein distance of their actions, any two of which are 1 apart",
    "wasserstein_2": "2-Wasserstein distance of their action distributions",
}


def page(stories: list[Story]) -> str:
    """The whole page; charts get ids of their own, in the order in which they appear."""
    counter = itertools.count(1)

    def chart(text):
        return panels.unique(text, f"c{next(counter)}")

    several = len(stories) > 1
    heading = f"{len(stories)} runs compared" if several else stories[0].name
    body = [
        f"<header><h1>{escape(heading)}</h1>{_about(stories)}</header>",
        f'<section id="results"><h2>Results</h2>{results(stories)}</section>',
        f'<section id="curves"><h2>Learning curves</h2>{learning(stories, chart)}</section>',
    ]
    for story in stories:
        title = f"<h2>{escape(story.name)}</h2>" if several else ""
        level = "h3" if several else "h2"
        body.append(f"<article>{title}{one(story, chart, level)}</article>")
    data = json.dumps({"runs": [story.numbers() for story in stories]}, separators=(",", ":"))
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
        f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}",
    ]
    return f'<p class="quiet">{escape(" · ".join(parts))}</p>'


# --- results -------------------------------------------------------------------------------


def results(stories: list[Story]) -> str:
    """A table of one column a run; what no run has is left out."""
    columns = [measures(story) for story in stories]
    head = ""
    if len(stories) > 1:
        cells = "".join(f'<th scope="col">{escape(story.name)}</th>' for story in stories)
        head = f"<thead><tr><th></th>{cells}</tr></thead>"
    names = [name for name in _MEASURES if any(name in column for column in columns)]
    rows = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td>{escape(column.get(name, '–'))}</td>" for column in columns)
        + "</tr>"
        for name in names
    )
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


def measures(story: Story) -> dict[str, str]:
    """What the table says of one run."""
    summary, cells = story.summary, {}
    cells["Final return"] = _amount(summary["eval_return"])
    if len(summary["seeds"]) > 1:
        cells["per seed"] = " · ".join(map(_amount, summary["eval_return_per_seed"]))
    if "win_rate" in summary:
        cells["Win rate"] = f"{summary['win_rate']:.1%}"
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


def _amount(value):
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


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
    caption = "Greedy episodes"
    if any(len(story.summary["seeds"]) > 1 for story in stories):
        caption += "; the line is the median over seeds, the band reaches from quartile to quartile"
    environments = dict.fromkeys(story.summary["env"] for story in stories)
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
                f'<li><i style="background:{c}"></i>{escape(s.name)}</li>' for s, c in env_stories
            )
            parts.append(f'<ul class="legend">{items}</ul>')
        kind = "broad" if len(scores) == 1 else "pair"
        parts.append(f'<div class="figures {kind}">{figures}</div>')
    signs = [sign for story in stories for sign in story.summary.get("warnings", ())]
    warnings = "".join(f"<p>Warning: {escape(sign)}</p>" for sign in signs)
    return f'<p class="quiet">{caption}.</p>' + warnings + "".join(parts)


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
        f'<div class="figures">{_activations(story, chart)}</div>',
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
        f"{_DISTANCES[story.distance]}. Their mean, the System Neural Diversity, is "
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
    parts = []
    tall = float(np.clip(180 / len(story.agents), 7, 22))
    for layer, values in story.activations.items():
        svg = panels.cells(
            np.array(values, float), _short(story.agents), [], row_colours=story.colours,
            scale="mean |activation|", label=f"activations of {layer}", cell_height=tall,
        )  # fmt: skip
        parts.append(_figure(f"Activations of {layer}", "", chart(svg)))
    return "".join(parts)


def _short(agents):
    return [agent.replace("_", " ") for agent in agents]


def _replay(story):
    if story.replay is None:
        return f'<p class="quiet">{escape(story.summary["env"])} has no pictures to replay.</p>'
    inside = story.replay.replace("&", "&amp;").replace('"', "&quot;")
    return f'<iframe title="Replay of an episode" loading="lazy" srcdoc="{inside}"></iframe>'
