"""Figure 2: return, or share of wins on maps, over environment steps, in every cell.

    python -m experiments.figure_2 [cells=ant_4x2/mappo/ps+nps+ps_lora] [seeds=5] [total_steps=12e6]
        [run=FOLDER,...] [last=5]

See cells.py for the keys; run= takes finished runs instead of cells, such as a batch of single
seeds: those that differ in nothing but seeds, and in where they began, are one curve. Thick lines
are means over seeds, smoothed, over faint ones of every seed, and bands the mean's 95 % bootstrap
interval; of fewer than three seeds there are points and no band. Every curve's end stands at its
right, a dotted line is the untrained team's level, a dashed one where a phase begins.
figure_2.csv holds every evaluation of every seed; figure_2_summary.csv the paper's medians and
quartiles, and the interquartile mean with its interval (Agarwal et al. 2021);
figure_2_improvement.csv how probably one way of sharing ends above another, by the mean of each
seed's `last` evaluations, and by how much, seed by seed.
"""

from experiments import cells, command, comparison, learning, pictures
from lorasa_jax.config.paper import TASKS

CELLS = cells.grid(TASKS)


def main(arguments: list[str]) -> None:
    request = cells.request("figure_2", arguments, CELLS, **learning.OPTIONS)
    learned = learning.of(request)
    if learned is not None:
        pictures.print_paths(comparison.figure_of(request, learned))


if __name__ == "__main__":
    command.run(main)
