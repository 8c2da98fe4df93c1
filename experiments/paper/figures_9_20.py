"""Figures 9 to 20: how active every unit of every layer is, agent by agent.

    python -m experiments.figures_9_20 [cells=ant_4x2/a2po/ps_lora] [run=FOLDER,...] [seeds=1]
        [total_steps=12e6] [switches=2e6,4e6] [length=120] [envs=8]

One picture a run, figures_9_20_<run>: mean absolute activations over everything that the team saw
in `length` steps of `envs` environments. Its first row is the shared policy, without adapters. By
default the paper's runs, Ant 4x2 under A2PO at four switches among them (its Figures 17-20);
`switches=` applies to all cells given. figures_9_20.csv holds all values,
figures_9_20_divergence.csv how far an agent's map is from the shared one, layer by layer:
|agent - shared| / |shared|, which is what the paper reads from the pictures by eye.
"""

import shlex

import jax
import numpy as np

from experiments import ablations, cells, command, finished, pictures
from lorasa_jax.analysis import activations, weights
from lorasa_jax.values import whole_number

MAPS = ("smac_3s5z_vs_3s6z", "ant_4x2", "smac_MMM2", "walker2d_3x2")
CELLS = cells.grid(MAPS, schemes=("ps_lora",))
SHARED = "shared"


def main(arguments: list[str]) -> None:
    request = cells.request(
        "figures_9_20", arguments, CELLS, run="", length="120", envs="8", switches=""
    )
    length, envs = (whole_number(request.options[key], key) for key in ("length", "envs"))
    subjects = finished.subjects(request, _cells(request), adapted=True)
    if subjects is None:
        return
    measured = [
        (subject, seed, maps(subject, seed, length, envs))
        for subject in subjects
        for seed in subject.seeds
    ]
    pictures.print_paths(_write(request, measured))


def _cells(request):
    if request.options["switches"]:
        return tuple(c for cell in request.cells for c in ablations.by_switch(request, cell))
    usual = cells.Cell("ant_4x2", "a2po", "ps_lora")
    given = any(word.startswith("cells=") for word in shlex.split(request.command))
    return request.cells if given else (*request.cells, *ablations.by_switch(request, usual))


def maps(subject, seed, length, num_envs) -> dict[str, np.ndarray]:
    """{layer: [1 + agent, unit]}, the shared policy's first."""
    team = subject.team
    seen = finished.visited(subject, seed, length, num_envs)
    tree, axes = subject.weights(seed)
    backbone = weights.backbone(team.actor.scheme, subject.banks(seed))
    apart = jax.tree.map(lambda _: 0, backbone)

    @jax.jit
    def both(tree, backbone, seen):
        agents = activations.activation_maps(team, (tree, axes), seen)
        shared = activations.activation_maps(team, (backbone, apart), seen)
        return {layer: (shared[layer][:1], agents[layer]) for layer in agents}

    maps_ = both(tree, backbone, seen)
    return weights.ordered({layer: np.concatenate(parts) for layer, parts in maps_.items()})


def divergence(map_: np.ndarray) -> np.ndarray:
    """[agent]: |agent's row - shared row| / |shared row| of a map [1 + agent, unit]."""
    shared = map_[0]
    return np.linalg.norm(map_[1:] - shared, axis=1) / max(np.linalg.norm(shared), 1e-12)


def _write(request, measured):
    rows, apart, paths = [], [], []
    for subject, seed, maps_ in measured:
        agents = (SHARED, *subject.team.env.agents)
        mark = {**subject.columns(), "seed": seed}
        rows += [
            {**mark, "layer": layer, "agent": agent, "unit": unit, "activation": value}
            for layer, map_ in maps_.items()
            for agent, row in zip(agents, map_, strict=True)
            for unit, value in enumerate(row)
        ]
        apart += [
            {**mark, "layer": layer, "agent": agent, "divergence": value}
            for layer, map_ in maps_.items()
            for agent, value in zip(agents[1:], divergence(map_), strict=True)
        ]
        if seed == subject.seeds[0]:
            name = f"figures_9_20_{subject.name}".replace("switch_at=", "at_").replace(" ", "_")
            paths += pictures.save(request, picture(subject, maps_), name)
    return [
        pictures.write_rows(request, rows),
        pictures.write_rows(request, apart, "figures_9_20_divergence"),
        *paths,
    ]


@pictures.styled
def picture(subject, maps_):
    """A panel a layer, a row an agent, every panel on a scale of its own."""
    agents = (SHARED, *subject.team.env.agents)
    height = 0.5 + 0.16 * len(agents)
    drawn, axes = pictures.figure(len(maps_), 1, 6.4, height)
    for axis, (layer, map_) in zip(axes[:, 0], maps_.items(), strict=True):
        image = axis.imshow(map_, aspect="auto", interpolation="nearest", cmap="magma", vmin=0.0)
        axis.set_yticks(range(len(agents)), agents, fontsize=6)
        axis.set_xticks([])
        axis.set_title(layer, loc="left", fontsize=8)
        axis.figure.colorbar(image, ax=axis, pad=0.01)
    drawn.suptitle(f"{subject.env}, {subject.algo.upper()} {subject.keys}: mean |activation|")
    return drawn


if __name__ == "__main__":
    command.run(main)
