"""The report's page out of its stories: one HTML file that asks nothing of the network."""

import itertools
import json
import re
from html import escape
from pathlib import Path

import numpy as np
import yaml

from lorasa_jax.analysis.curves import LEAST_SEEDS
from lorasa_jax.report import panels
from lorasa_jax.report.story import Story, grouped
from lorasa_jax.report.table import labels_of, results
from lorasa_jax.values import listed

_TEMPLATE = Path(__file__).with_name("page.html")
TITLES = {
    "eval_return": "Return", "win_rate": "Win rate",
    "action_std": "Standard deviation of actions while training",
}  # fmt: skip
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
