"""Specialisation and Synchronisation: what every way of sharing earns, by the number of agents.

    python -m experiments.games [cells=specialisation_2+synchronisation_2/mappo/ps+nps] [seeds=3]
        [total_steps=200000] [last=5]

In the first game an agent earns more the fewer others choose its action, in the second the more do;
a way of sharing should manage both. games.csv has the mean return of each seed's `last`
evaluations: median, least and most over seeds, beside what random and best play earn, which the
picture shows as lines. See cells.py for the keys.
"""

import numpy as np

from experiments import cells, command, learning, pictures
from lorasa_jax import envs, sharing
from lorasa_jax.values import whole_number

GAMES, AGENTS = ("specialisation", "synchronisation"), (2, 4, 8, 16)
CELLS = cells.grid(
    tuple(f"{game}_{agents}" for game in GAMES for agents in AGENTS),
    algos=("mappo",),
    schemes=sharing.REGISTRY.names(),
)
CELLS = tuple(
    cell
    for cell in CELLS
    if not (sharing.REGISTRY.row(cell.sharing).clustered and cell.env.endswith("_2"))
)


def main(arguments: list[str]) -> None:
    arguments = [*arguments, *(word for word in DEFAULTS if not _given(word, arguments))]
    request = cells.request("games", arguments, CELLS, **learning.OPTIONS)
    learned = learning.of(request)
    if learned is not None:
        last = whole_number(request.options["last"], "last")
        rows = [row(one, last) for one in learned]
        paths = [pictures.write_rows(request, rows), *pictures.save(request, picture(rows))]
        pictures.print_paths(paths)


DEFAULTS = ("seeds=3", "total_steps=200000", "algo.num_envs=20", "algo.rollout_length=50")


def _given(word, arguments):
    return any(argument.partition("=")[0] == word.partition("=")[0] for argument in arguments)


def row(one, last: int) -> dict:
    """What a cell earned, and what can be earned."""
    game, _, agents = one.cell.env.rpartition("_")
    ends = one.returns[:, -last:].mean(1)
    env = envs.make(one.cell.env)
    return {
        "game": game, "agents": int(agents), "sharing": one.cell.sharing, "seeds": len(ends),
        "median": float(np.median(ends)), "least": float(ends.min()), "most": float(ends.max()),
        "random": env.random, "optimum": env.optimum,
    }  # fmt: skip


@pictures.styled
def picture(rows: list[dict]):
    """A panel for each game: returns over agents, beside what random and best play earn."""
    games = list(dict.fromkeys(row["game"] for row in rows))
    names = list(dict.fromkeys(row["sharing"] for row in rows))
    colours = dict(zip(names, pictures.palette(len(names)), strict=True))
    drawn, axes = pictures.figure(1, len(games), 3.6, 3.0)
    for axis, game in zip(axes[0], games, strict=True):
        here = [row for row in rows if row["game"] == game]
        for name in names:
            own = sorted((r for r in here if r["sharing"] == name), key=lambda r: r["agents"])
            x, *y = np.array([[r[k] for k in ("agents", "least", "median", "most")] for r in own]).T
            label, spread = pictures.name_of(name), (y[1] - y[0], y[2] - y[1])
            axis.errorbar(x, y[1], spread, fmt="o-", ms=3, lw=1, color=colours[name], label=label)
        lines = sorted({(r["agents"], r["random"], r["optimum"]) for r in here})
        for place, label in ((1, "random"), (2, "optimum")):
            axis.plot(
                [x[0] for x in lines], [x[place] for x in lines], "--" if place == 1 else ":",
                color="0.4", label=label,
            )  # fmt: skip
        axis.set(title=game, xlabel="agents", xscale="log", ylabel="return")
        axis.set_xticks([x[0] for x in lines], [str(x[0]) for x in lines])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8))
    return drawn


if __name__ == "__main__":
    command.run(main)
