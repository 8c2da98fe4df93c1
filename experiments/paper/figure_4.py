"""Figure 4: when to switch, at which rank, and on which layers, beside full sharing.

    python -m experiments.figure_4 [cells=ant_4x2/mappo] [seeds=5] [total_steps=12e6]
        [switches=2e6,4e6,...] [ranks=4,8,16,64] [placements=first,recurrent,last,all]

One row of panels for each question; see cells.py for the other keys. All fine-tuning begins from
checkpoints of the fully shared runs: nothing is pretrained twice. figure_4.csv holds every
evaluation, figure_4_summary.csv the statistics of figure_2_summary.csv.
"""

from experiments import ablations, cells, command, comparison, learning, pictures, training
from lorasa_jax.envs.mamujoco.replay.scene import palette

CELLS = cells.grid(["ant_4x2", "smac_MMM2"], schemes=("ps_lora",))
QUESTIONS = {
    "switch": ablations.by_switch,
    "rank": ablations.by_rank,
    "placement": ablations.by_placement,
}

ASKED = {"switch": "When to switch?", "rank": "Which rank?", "placement": "Which layers?"}


def main(arguments: list[str]) -> None:
    options = {
        "switches": "",
        "ranks": ablations.RANKS,
        "placements": ",".join(ablations.PLACEMENTS),
    }
    request = cells.request("figure_4", arguments, CELLS, **options)
    chosen = dict.fromkeys((cell.env, cell.algo) for cell in request.cells)
    bases = [cells.Cell(env, algo, "ps_lora") for env, algo in chosen]
    panels = {
        (question, base): (ablations.baseline(base), *vary(request, base))
        for question, vary in QUESTIONS.items()
        for base in bases
    }
    needed = tuple(dict.fromkeys(cell for panel in panels.values() for cell in panel))
    trainings = training.ready(request, needed)
    if trainings is None:
        return
    learned = {one.cell: learning.read(one.cell, one.out, one.config) for one in trainings}
    pictures.print_paths(_write(request, bases, panels, learned))


@pictures.styled
def _write(request, bases, panels, learned):
    wide = max(6.0 / len(bases), 3.6)
    drawn, axes = pictures.figure(len(QUESTIONS), len(bases), wide, 2.5)
    rows, summaries = [], []
    for i, question in enumerate(QUESTIONS):
        for j, base in enumerate(bases):
            here = [learned[cell] for cell in panels[question, base]]
            metric = comparison.metric_of(here)
            names = [ablations.name_of(one.cell) for one in here]
            comparison.draw(axes[i, j], here, metric, names, palette(len(here)))
            axes[i, j].set_title(f"{ASKED[question]} {base.env}, {base.algo.upper()}")
            axes[i, j].set_xlabel("environment steps")
            axes[i, j].set_ylabel("win rate" if metric == "win_rate" else "episode return")
            mark = {"question": question}
            rows += [mark | row for row in comparison.runs_table(here)]
            summaries += [mark | row for row in comparison.summary_table(here, metric)]
    pictures.caption(drawn, comparison.caption_of(list(learned.values()), 5))
    return [
        pictures.write_rows(request, rows),
        pictures.write_rows(request, summaries, "figure_4_summary"),
        *pictures.save(request, drawn),
    ]


if __name__ == "__main__":
    command.run(main)
