"""Tables 10 to 13: norms of shared weights, of merged weights and of adapters, layer by layer.

    python -m experiments.tables_10_13 [cells=ant_4x2/mappo] [seeds=5] [total_steps=12e6]
        [switches=2e6,4e6,...] [ranks=4,8,16,64]
    python -m experiments.tables_10_13 run=FOLDER[@STEP],...

Given runs need no adapters; a step chooses any checkpoint that was kept, such as the last of
pretraining or those of `keep_at`.

Tables 10 (Ant 4x2) and 12 (MMM2) vary the switch, 11 and 13 the rank; their runs are Figure 4's.
tables_10_13.csv has a row for every run, seed, layer and agent: Frobenius norms, and the product
`inner` = <shared, delta>, with merged^2 = shared^2 + delta^2 + 2 inner. tables_10_13.md shows means
over agents and seeds in the paper's columns, beside the norms of full sharing at the end; in the
picture, the deltas' norms.
"""

import numpy as np

from experiments import ablations, cells, command, finished, pictures
from lorasa_jax.analysis import weights
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically

CELLS = cells.grid(["ant_4x2", "smac_MMM2"], algos=("mappo",), schemes=("ps_lora",))


def main(arguments: list[str]) -> None:
    request = cells.request(
        "tables_10_13", arguments, CELLS, run="", switches="", ranks=ablations.RANKS
    )
    chosen = dict.fromkeys((cell.env, cell.algo) for cell in request.cells)
    needed = []
    for base in (cells.Cell(env, algo, "ps_lora") for env, algo in chosen):
        needed += [ablations.baseline(base)]
        needed += ablations.by_switch(request, base) + ablations.by_rank(request, base)
    subjects = finished.subjects(request, tuple(dict.fromkeys(needed)), adapted=False)
    if subjects is not None:
        pictures.print_paths(_write(request, subjects))


def rows_of(subject, seed) -> list[dict]:
    """Rows of one seed, by layer and agent; without adapters, merged is shared and delta zero.

    The head of means is linear_7; spreads have a row of their own, linear_7_log_std of a head or
    log_std of a free vector.
    """
    team = subject.team
    if "net" not in team.actor.scheme.banks:
        raise ConfigError(
            f"{subject.out} has no whole networks (sharing={subject.sharing}) whose norms could "
            "stand beside a backbone's; give another run."
        )
    norms = weights.norms(team.actor.scheme, subject.banks(seed))
    return [
        {
            **subject.columns(), "seed": seed, "layer": layer, "agent": agent,
            **{name: float(np.asarray(getattr(norms, name)[layer])[i]) for name in norms._fields},
        }
        for layer in weights.ordered(norms.merged)
        for i, agent in enumerate(team.env.agents)
    ]  # fmt: skip


@pictures.styled
def _write(request, subjects):
    rows = [row for s in subjects for seed in s.seeds for row in rows_of(s, seed)]
    path = request.out / "tables_10_13.md"
    paths = [pictures.write_rows(request, rows), path]
    write_atomically(path, markdown(request, rows))
    return [*paths, *pictures.save(request, picture(rows))]


def picture(rows: list[dict]):
    """The norms of what adapters add: a bar for the mean, a dot for every agent of every seed."""
    drawn, axes = pictures.figure(1, 1, 6.4, 3.2)
    axis, keys = axes[0, 0], ("env", "algo", "sharing", "keys")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    runs = dict.fromkeys(tuple(row[key] for key in keys) for row in rows)
    adapted = [run for run in runs if not _plain(rows, run)]
    width = 0.8 / max(len(adapted), 1)
    for i, (run, colour) in enumerate(zip(adapted, palette(len(adapted)), strict=True)):
        columns = dict(zip(keys, run, strict=True))
        for j, layer in enumerate(layers):
            values = [float(value) for value in _of(rows, columns, layer, "delta")]
            x = j + (i - (len(adapted) - 1) / 2) * width
            name = "_".join(part for part in run if part) if j == 0 else None
            axis.bar(x, np.mean(values), 0.9 * width, color=colour, alpha=0.55, label=name)
            spread = np.linspace(-0.3, 0.3, len(values)) * width if len(values) > 1 else [0.0]
            axis.plot(x + np.array(spread), values, "o", color=colour, ms=2.5, mec="white", mew=0.3)
    axis.set_xticks(range(len(layers)), layers)
    axis.set_ylabel("norm of an agent's delta")
    axis.set_ylim(bottom=0)
    if adapted:
        drawn.legend(loc="outside upper left", fontsize=6)
    seeds = len({row["seed"] for row in rows})
    agents = len({row["agent"] for row in rows})
    pictures.caption(
        drawn,
        "Frobenius norm of what an agent's adapter adds to a layer. Bars: means; dots: every "
        f"agent of every seed ({agents} agents, n = {seeds} seed{'s' * (seeds > 1)}).",
    )
    return drawn


def _mean(rows, columns, layer, name):
    chosen = _of(rows, columns, layer, name)
    return float(np.mean(chosen)) if chosen else None


def _of(rows, columns, layer, name):
    """What rows of one run and layer hold under a name."""
    return [
        row[name]
        for row in rows
        if row["layer"] == layer and all(row[key] == value for key, value in columns.items())
    ]


def markdown(request, rows: list[dict]) -> str:
    """A table for every environment and algorithm, with three columns for each run."""
    keys = ("env", "algo", "sharing", "keys")
    runs = list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))
    lines = [f"`{request.command}`", ""]
    for env, algo in dict.fromkeys(run[:2] for run in runs):
        here = [run for run in runs if run[:2] == (env, algo)]
        head = ["layer"]
        for run in here:
            title = " ".join(part for part in (pictures.name_of(run[2]), run[3]) if part)
            names = ("theta",) if _plain(rows, run) else ("shared", "merged", "delta")
            head += [f"{title}: {name}" for name in names]
        lines += [f"{env}, {algo.upper()}, means over agents and seeds", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for layer in dict.fromkeys(row["layer"] for row in rows):
            values = []
            for run in here:
                names = ("merged",) if _plain(rows, run) else ("shared", "merged", "delta")
                columns = dict(zip(keys, run, strict=True))
                values += [f"{_mean(rows, columns, layer, name):.2f}" for name in names]
            lines.append("| " + " | ".join([layer, *values]) + " |")
        lines.append("")
    return "\n".join(lines)


def _plain(rows, run):
    """Whether a run has no adapters."""
    return not any(
        row["delta"]
        for row in rows
        if (row["env"], row["algo"], row["sharing"], row["keys"]) == run
    )


if __name__ == "__main__":
    command.run(main)
