"""Figures 6 and 7: how far apart agents' policies are, pair by pair.

    python -m experiments.figures_6_7 [cells=smac_MMM2/mappo/ps+ps_lora] [run=FOLDER,...]
        [seeds=5] [total_steps=12e6] [length=STEPS] [envs=8]

The mean 1-Wasserstein distance of two agents' action distributions, over one set of observations:
what the teams of all ways of sharing in a panel see in `length` steps (120, or an episode's) of
`envs` environments. Of one run alone its diversity is the report's, to the last digit.
Actions are 1 apart on maps (total variation, illegal ones at zero), |x - y| before tanh on robots.
The paper does not say over which observations it averages, nor with which ground metric.

figures_6_7.csv has a row for every pair of agents and seed: `wasserstein` of the policies as they
act, each reading its own id, `weights_only` where the id stays that of whoever saw the observation,
and total variation and Jensen-Shannon distance as the first. figures_6_7_diversity.csv is System
Neural Diversity (Bettini et al. 2025), the mean over pairs, and that of pairs of the same unit type
and of different ones, where agents have types.
"""

import jax
import numpy as np

from experiments import cells, command, finished, pictures
from lorasa_jax.analysis import diversity, observations, policies
from lorasa_jax.analysis.distances import distances_of
from lorasa_jax.values import whole_number

MAPS = ("smac_MMM2", "smac_3s5z_vs_3s6z")
CELLS = cells.grid(MAPS, schemes=("ps_lora",))
DISTANCES = (diversity.DISTANCE, "total_variation", "jensen_shannon")


def main(arguments: list[str]) -> None:
    request = cells.request("figures_6_7", arguments, CELLS, run="", length="", envs="")
    subjects = finished.subjects(request, adapted=False)
    if subjects is None:
        return
    measured = []
    for panel in finished.by_panel(subjects).values():
        length, envs = (
            whole_number(request.options[key] or usual, key)
            for key, usual in zip(("length", "envs"), diversity.visits(panel[0].team), strict=True)
        )
        for seed in panel[0].seeds:
            sets = [finished.visited(subject, seed, length, envs) for subject in panel]
            seen = observations.pooled(*sets)
            measured += [(subject, seed, matrices(subject, seed, seen)) for subject in panel]
    pictures.print_paths(_write(request, measured))


def matrices(subject, seed, seen) -> dict[str, np.ndarray]:
    """{distance: [agent, agent]} of one policy on a set of observations."""
    team = subject.team
    weights, axes = subject.weights(seed)
    known = distances_of(team.distribution)
    ids = policies.carries_ids(team.env)

    @jax.jit
    def measure(tree, seen):
        def matrix(name, own_ids):
            return diversity.distance_matrix(known[name], team, (tree, axes), seen, own_ids=own_ids)

        distances = {name: matrix(name, ids) for name in DISTANCES}
        return distances | {"weights_only": matrix(diversity.DISTANCE, False)}

    return {name: np.asarray(x, float) for name, x in measure(weights, seen).items()}


def types_of(agents: tuple[str, ...]) -> list[str] | None:
    """Unit types out of agents' names, such as marine_3; None where all are of one kind."""
    types = [name.rpartition("_")[0] for name in agents]
    return types if len(set(types)) > 1 else None


def pair_rows(subject, seed, distances) -> list[dict]:
    agents = subject.team.env.agents
    order = (diversity.DISTANCE, "weights_only", "total_variation", "jensen_shannon")
    return [
        {
            **subject.columns(), "seed": seed, "agent": one, "other": other,
            **{name: distances[name][i, j] for name in order},
        }
        for i, one in enumerate(agents)
        for j, other in enumerate(agents)
        if i < j
    ]  # fmt: skip


def diversity_row(subject, seed, distances) -> dict:
    types = types_of(subject.team.env.agents)
    matrix = distances[diversity.DISTANCE]
    same, different = (None, None) if types is None else diversity.snd_by_group(matrix, types)
    return {
        **subject.columns(),
        "seed": seed,
        "snd": diversity.snd(matrix),
        "snd_weights_only": diversity.snd(distances["weights_only"]),
        "same_type": "" if same is None else same,
        "different_types": "" if different is None else different,
    }


@pictures.styled
def _write(request, measured):
    rows = [row for each in measured for row in pair_rows(*each)]
    summary = [diversity_row(*each) for each in measured]
    means: dict = {}
    for subject, _, distances in measured:
        means.setdefault(subject, []).append(distances[diversity.DISTANCE])
    drawn, axes = pictures.figure(1, len(means), 3.0, 2.8)
    for axis, (subject, matrices_) in zip(axes[0], means.items(), strict=True):
        heat_map(axis, np.mean(matrices_, 0), subject)
    return [
        pictures.write_rows(request, rows),
        pictures.write_rows(request, summary, "figures_6_7_diversity"),
        *pictures.save(request, drawn),
    ]


def heat_map(axis, matrix, subject) -> None:
    """A distance matrix [agent, agent] with the agents' names."""
    agents = subject.team.env.agents
    image = axis.imshow(matrix, cmap="viridis", vmin=0.0)
    axis.set_xticks(range(len(agents)), agents, rotation=90)
    axis.set_yticks(range(len(agents)), agents)
    axis.set_title(f"{subject.env}\n{subject.algo.upper()}, {pictures.name_of(subject.sharing)}")
    axis.figure.colorbar(image, ax=axis, shrink=0.8, label="Wasserstein distance")


if __name__ == "__main__":
    command.run(main)
