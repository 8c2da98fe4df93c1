"""Figure 5: returns on the SMAC suite's maps over environment steps, where Figure 2 has wins.

    python -m experiments.figure_5 [cells=smac_MMM2/mappo] [seeds=5] [total_steps=12e6]

Its runs are Figure 2's; see figure_2.py for the files and cells.py for the keys.
"""

from experiments import cells, command, comparison, learning, pictures
from lorasa_jax.config.paper import TASKS

CELLS = cells.grid([name for name in TASKS if name.startswith("smac_")])


def main(arguments: list[str]) -> None:
    request = cells.request("figure_5", arguments, CELLS, **learning.OPTIONS)
    learned = learning.of(request)
    if learned is not None:
        pictures.print_paths(comparison.figure_of(request, learned, "return"))


if __name__ == "__main__":
    command.run(main)
