"""Whether agents need the adapters that are theirs: returns when they lose or exchange them.

    python -m experiments.specialisation [cells=ant_4x2/mappo/ps_lora] [run=FOLDER,...] [seeds=5]
        [total_steps=12e6] [episodes=100] [exchanges=16]

Not in the paper; a task is specialised if policies differ and exchanging them costs return
(Tessera et al. 2025). Every agent acts, greedily and from the same starts, with

    own        its own adapter: the team as it was trained
    exchanged  another agent's, nobody with its own, in up to `exchanges` random ways
    uniform    the adapter of one agent, the same for all, each agent's in turn
    common     the mean of all agents' adapters: what they have learned alike
    backbone   none

and keeps its own id throughout; under seps_lora an adapter brings its cluster's backbone along.
Adapters that have learned one thing all alike do as well in `common` and `exchanged` as in `own`.
The reverse is no proof: a mean of adapters can also be bad because it is a mean. specialisation.csv
has a row for every seed and team, specialisation.md medians and ranges over a seed's teams.
"""

import jax
import numpy as np

from experiments import cells, command, finished, pictures
from lorasa_jax.analysis import swap, weights
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn.finished import seeing
from lorasa_jax.learn.play import play
from lorasa_jax.values import whole_number

CELLS = cells.grid(["ant_4x2", "smac_MMM2"], algos=("mappo",), schemes=("ps_lora",))
TEAMS = ("own", "exchanged", "uniform", "common", "backbone")
WORDS = dict(zip(TEAMS, ("own", "exchanged", "one for all", "mean", "none"), strict=True))
EXPLAINED = (
    "Which adapter every agent acts with. own: its own, as trained; exchanged: another agent's; "
    "one for all: that of one agent, each in turn; mean: the mean of all adapters; none: the "
    "shared policy without any. A dot is one such team of a seed, its mean over the same episodes."
)


def main(arguments: list[str]) -> None:
    request = cells.request(
        "specialisation", arguments, CELLS, run="", episodes="100", exchanges="16"
    )
    episodes, exchanges = (
        whole_number(request.options[key], key) for key in ("episodes", "exchanges")
    )
    subjects = finished.subjects(request, adapted=True)
    if subjects is not None:
        rows = [row for subject in subjects for row in rows_of(subject, episodes, exchanges)]
        pictures.print_paths(_write(request, subjects, rows))


def rows_of(subject, episodes: int, exchanges: int) -> list[dict]:
    """A row for every seed and team: mean return, and where there is winning, the share won.

    Raises:
      ConfigError: there is one agent alone.
    """
    rows, scheme = [], subject.team.actor.scheme
    if weights.num_agents(scheme) < 2:
        raise ConfigError(f"{subject.env} has one agent; choose an environment with several.")

    @jax.jit
    def played(key, tree, statistics):
        team = seeing(subject.team, statistics)
        results = play(key, team, _each_its_own(tree), episodes=episodes)
        return results.returns.mean(), None if results.won is None else results.won.mean()

    for seed, policy in subject.policies.items():
        for name, draw, tree in teams(scheme, policy.banks, exchanges):
            returned, won = played(jax.random.key(seed), tree, policy.statistics)
            rows.append(
                {
                    **subject.columns(), "seed": seed, "team": name, "draw": draw,
                    "return": float(returned), "win_rate": "" if won is None else float(won),
                }
            )  # fmt: skip
    return rows


def teams(scheme, banks, exchanges: int):
    """Yields (name, number of its kind, every agent's weights [agent, ...])."""
    merged = weights.merged(scheme, banks)
    agents = weights.num_agents(scheme)
    yield "own", 0, merged
    assignments = {
        "exchanged": swap.derangements(agents, exchanges),
        "uniform": swap.uniform(agents),
    }
    for name, kind in assignments.items():
        for draw, assignment in enumerate(kind):
            yield name, draw, swap.reassigned(_each_its_own(merged), assignment)[0]
    yield "common", 0, weights.common(scheme, banks)
    yield "backbone", 0, weights.backbone(scheme, banks)


def _each_its_own(tree):
    """Weights [agent, ...] with the axes that say so."""
    return tree, jax.tree.map(lambda _: 0, tree)


@pictures.styled
def _write(request, subjects, rows):
    path = request.out / "specialisation.md"
    paths = [pictures.write_rows(request, rows), path]
    write_atomically(path, markdown(request, subjects, rows))
    return [*paths, *pictures.save(request, picture(subjects, rows))]


def picture(subjects, rows: list[dict]):
    """Every team's return, a panel for each run."""
    wide = max(6.0 / len(subjects), 4.4)
    drawn, axes = pictures.figure(1, len(subjects), wide, 3.0)
    for axis, subject in zip(axes[0], subjects, strict=True):
        for place, seed in enumerate(subject.seeds):
            shift = 0.6 * (place + 1) / (len(subject.seeds) + 1) - 0.3
            for x, name in enumerate(TEAMS):
                values = [float(value) for value in _values(rows, subject, seed, name)]
                marks = {"color": f"C{place}", "ms": 4, "alpha": 0.6, "mew": 0}
                label = f"seed {seed}" if x == 0 else None
                axis.plot([x + shift] * len(values), values, "o", label=label, **marks)
        axis.set_xticks(range(len(TEAMS)), [WORDS[name] for name in TEAMS])
        axis.set_title(f"{subject.env}, {subject.algo.upper()}")
        axis.set_ylabel(_measure(rows, subject)[1])
    handles = {}
    for axis in axes[0]:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    drawn.legend(handles.values(), handles, loc="outside right upper", fontsize=6)
    pictures.caption(drawn, EXPLAINED)
    return drawn


def _rows_of_run(rows, subject):
    columns = subject.columns()
    return [row for row in rows if all(row[key] == value for key, value in columns.items())]


def _measure(rows, subject):
    """The measure of a run: wins where its environment has them, else returns."""
    won = _rows_of_run(rows, subject)[0]["win_rate"] != ""
    return ("win_rate", "episodes won") if won else ("return", "episode return")


def _values(rows, subject, seed, name):
    measure, _ = _measure(rows, subject)
    return [
        row[measure]
        for row in _rows_of_run(rows, subject)
        if row["seed"] == seed and row["team"] == name
    ]  # fmt: skip


def markdown(request, subjects, rows: list[dict]) -> str:
    """A table for every run, a row for each seed; medians and ranges where there are several."""
    lines = [f"`{request.command}`", ""]
    for subject in subjects:
        measure, title = _measure(rows, subject)
        form = "{:.1%}" if measure == "win_rate" else "{:,.0f}"
        lines += [f"{subject.name}: {title}", "", "| seed | " + " | ".join(TEAMS) + " |"]
        lines += ["|" + "---|" * (len(TEAMS) + 1)]
        for seed in subject.seeds:
            values = [_formatted(_values(rows, subject, seed, name), form) for name in TEAMS]
            lines.append("| " + " | ".join([str(seed), *values]) + " |")
        lines.append("")
    return "\n".join(lines)


def _formatted(values, form):
    middle = form.format(np.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))} to {form.format(max(values))})"


if __name__ == "__main__":
    command.run(main)
