"""Figure 8: how many weights are large, of the shared policy and of what adapters add.

    python -m experiments.figure_8 [cells=ant_4x2/mappo/ps_lora] [run=FOLDER,...] [seeds=5]
        [total_steps=12e6]

The recipe of the caption: all weight matrices in one array, absolute values, 100 thresholds evenly
spaced from its smallest to its largest entry, and the share of entries that are at least as large.
Every curve has its own scale then, and that of the larger array falls later for its scale alone;
figure_8.csv therefore also has the deltas at the shared weights' thresholds (scale=common).
"""

import numpy as np

from experiments import cells, command, finished, pictures
from lorasa_jax.analysis import sparsity

CELLS = cells.grid(["ant_4x2", "smac_MMM2"], schemes=("ps_lora",))


def main(arguments: list[str]) -> None:
    request = cells.request("figure_8", arguments, CELLS, run="")
    subjects = finished.subjects(request, adapted=True)
    if subjects is not None:
        measured = [(s, seed, curves(s, seed)) for s in subjects for seed in s.seeds]
        pictures.print_paths(_write(request, subjects, measured))


def curves(subject, seed) -> dict[tuple[str, str], sparsity.Curve]:
    """{(weights, scale): curve}, weights being `shared` or `delta`."""
    scheme, banks = subject.team.actor.scheme, subject.banks(seed)
    separate = sparsity.sparsity(scheme, banks)
    common = sparsity.sparsity(scheme, banks, separate.shared.thresholds)
    return {
        ("shared", "own"): separate.shared,
        ("delta", "own"): separate.delta,
        ("delta", "common"): common.delta,
    }


@pictures.styled
def _write(request, subjects, measured):
    rows = [
        {
            **subject.columns(), "seed": seed, "weights": weights, "scale": scale, "point": i,
            "threshold": threshold, "percent": percent,
        }
        for subject, seed, curves_ in measured
        for (weights, scale), curve in curves_.items()
        for i, (threshold, percent) in enumerate(zip(*curve, strict=True))
    ]  # fmt: skip
    drawn, axes = pictures.figure(1, len(subjects), 2.8, 2.3)
    lines = {
        ("shared", "own"): ("C0", "-", "shared"),
        ("delta", "own"): ("C1", "-", "adapters, own scale"),
        ("delta", "common"): ("C1", ":", "adapters, shared weights' scale"),
    }
    for axis, subject in zip(axes[0], subjects, strict=True):
        per_seed = [curves_ for one, _, curves_ in measured if one is subject]
        for name, (colour, style, text) in lines.items():
            percent = np.median([one[name].percent for one in per_seed], 0)
            axis.plot(range(len(percent)), percent, color=colour, ls=style, label=text)
        axis.set_title(f"{subject.env}, {subject.algo.upper()}")
        axis.set_xlabel("threshold, from smallest to largest (%)")
        axis.set_ylabel("weights at least as large (%)")
    axes[0, 0].legend(fontsize=7)
    return [pictures.write_rows(request, rows), *pictures.save(request, drawn)]


if __name__ == "__main__":
    command.run(main)
