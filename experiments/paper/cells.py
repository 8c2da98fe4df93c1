"""Cells of the paper's figures: which runs a figure needs, each trained once.

Every figure's command takes

    cells=ENV[/ALGO[/SHARING]],...   names in a place may be joined by +; a place left out means
                                     the figure's own choice
    seeds=5 total_steps=12e6         of every cell
    runs=runs out=outputs/<figure>   where runs lie, and where the figure is written
    show=commands                    print the training commands instead, to run them elsewhere,
                                     such as on a cluster; then the figure's command finds the runs
    KEY=VALUE ...                    any other key of lorasa_jax.run, for every cell that knows it
"""

import dataclasses
import itertools
import shlex
from dataclasses import dataclass
from pathlib import Path

from lorasa_jax import sharing
from lorasa_jax.config import plugins
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms
from lorasa_jax.values import close, whole_number

SCHEMES = ("ps", "nps", "seps", "mtl", "ps_lora", "seps_lora")
ALGOS = ("a2po", "mappo")
TWO_AGENTS = ("halfcheetah_2x3", "humanoid_9_8", "ant_2x4")  # too few to be clustered


@dataclass(frozen=True)
class Cell:
    """What one curve is trained with; keys are further words for lorasa_jax.run."""

    env: str
    algo: str
    sharing: str
    keys: tuple[str, ...] = ()

    def __str__(self):
        return " ".join([f"{self.env}/{self.algo}/{self.sharing}", *self.keys])


@dataclass(frozen=True)
class Request:
    """What a figure's command asks for; options: keys of this figure alone."""

    figure: str
    cells: tuple[Cell, ...]
    seeds: int
    keys: tuple[str, ...]
    options: dict[str, str]
    runs: Path
    out: Path
    show: bool
    command: str


def request(
    figure: str, arguments: list[str], default: tuple[Cell, ...], **options: str
) -> Request:
    """The request of a figure's command line; options: its further keys and their defaults.

    Raises:
      ConfigError: with one sentence.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument} is not of the form key=value.")
        given[key] = value
    plugins.load(plugins.named(arguments))
    taken = {"cells", "seeds", "runs", "out", "show", *options}
    show = given.get("show")
    if show not in (None, "commands"):
        raise ConfigError(f"show={show} is not known; choose show=commands.")
    cells = default
    if "cells" in given:
        cells = tuple(itertools.chain(*(_cells(text, default) for text in _split(given["cells"]))))
    return Request(
        figure,
        tuple(dict.fromkeys(cells)),
        whole_number(given.get("seeds", 5), "seeds"),
        tuple(f"{key}={value}" for key, value in given.items() if key not in taken),
        {key: given.get(key, value) for key, value in options.items()},
        Path(given.get("runs", "runs")),
        Path(given.get("out", f"outputs/{figure}")),
        show is not None,
        shlex.join(["python", "-m", f"experiments.{figure}", *arguments]),
    )


def _split(text):
    """At commas, but not within brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _cells(text, default):
    places = text.split("/")
    if len(places) > 3 or not all(places):
        raise ConfigError(
            f"cells={text} is not of the form ENV/ALGO/SHARING, such as ant_4x2/mappo."
        )
    algos = _chosen(places, 1, "algo", algorithms.REGISTRY.names())
    schemes = _chosen(places, 2, "sharing", sharing.REGISTRY.names())
    chosen = []
    for env in places[0].split("+"):
        usual = [cell for cell in default if cell.env == env] or default
        chosen += [
            Cell(env, algo, scheme)
            for algo in algos or dict.fromkeys(cell.algo for cell in usual)
            for scheme in schemes or dict.fromkeys(cell.sharing for cell in usual)
        ]
    return chosen


def _chosen(places, index, group, known):
    names = places[index].split("+") if len(places) > index else []
    for name in names:
        if name not in known:
            raise ConfigError(f"{group} {name} of cells is not known; {close(name, known)}")
    return names


def grid(envs, algos=ALGOS, schemes=SCHEMES) -> tuple[Cell, ...]:
    """All cells of environments, algorithms and schemes that exist.

    Schemes that need clusters are left out where there are two agents.
    """
    return tuple(
        Cell(env, algo, scheme)
        for env in envs
        for algo in algos
        for scheme in schemes
        if not (sharing.REGISTRY.row(scheme).clustered and env in TWO_AGENTS)
    )


def varied(cell: Cell, *values: str) -> tuple[Cell, ...]:
    """The cell with each of some further `key=value` words."""
    return tuple(dataclasses.replace(cell, keys=(*cell.keys, value)) for value in values)
