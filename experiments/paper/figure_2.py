"""Figure 2: return, or share of wins on maps, over environment steps, in every cell.

    python -m experiments.figure_2 [cells=ant_4x2/mappo/ps+nps+ps_lora] [seeds=5] [total_steps=12e6]
        [run=FOLDER,...] [last=5]

See cells.py for the keys; run= takes finished runs instead of cells, such as a batch of single
seeds: those that differ in nothing but seeds, and in where they began, are one curve. Lines are
medians over seeds and bands the quartiles, as in the paper; a dot marks where a phase
after the first begins, with its name where there are several.
figure_2.csv holds every evaluation of every seed; figure_2_summary.csv beside the quartiles the
interquartile mean with a 95 % bootstrap interval over seeds (Agarwal et al. 2021);
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
