"""Cells of the paper's figures: which runs a figure needs, each trained once and then found again.

Every figure's command takes

    cells=ENV[/ALGO[/SHARING]],...   names in a place may be joined by +; a place left out means
                                     the figure's own choice
    seeds=5 total_steps=12e6         of every cell
    runs=runs out=results/<figure>   where runs lie, and where the figure is written
    show=commands                    print the training commands instead, to run them elsewhere
    KEY=VALUE ...                    any other key of lorasa_jax.run, for every cell that knows it

A finished run is not trained again and an unfinished one goes on, so that the same command may be
given until it is done. Cells that fine-tune begin from a checkpoint of another cell of the figure
wherever one pretrains in the same way.
"""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import jax

from lorasa_jax import config as configuration
from lorasa_jax import run
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.policy import sharing
from lorasa_jax.values import close, whole

SCHEMES = ("ps", "nps", "seps", "mtl", "ps_lora", "seps_lora")
ALGOS = ("a2po", "mappo")
TWO_AGENTS = ("halfcheetah_2x3", "humanoid_9_8", "ant_2x4")  # too few to be clustered
# Keys that only a second phase knows.
_SECOND = ("switch_at", "switch_when", "switch_threshold", "switch_patience", "switch_margin")


class Interrupted(Exception):
    """A run was asked to stop, and has saved itself."""


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
    """What a figure's command asks for; own holds the figure's own keys."""

    figure: str
    cells: tuple[Cell, ...]
    seeds: int
    keys: tuple[str, ...]
    own: dict[str, str]
    runs: Path
    out: Path
    show: bool
    command: str


@dataclass(frozen=True)
class Training:
    """A cell's run: its words for lorasa_jax.run, and what they mean."""

    cell: Cell
    words: tuple[str, ...]
    config: Config

    @property
    def out(self) -> Path:
        return Path(self.config.out)

    @property
    def command(self) -> str:
        return " ".join(["python -m lorasa_jax.run", *self.words])


def request(figure: str, arguments: list[str], default: tuple[Cell, ...], **own: str) -> Request:
    """The request of a figure's command line; own gives its further keys and their defaults.

    Raises:
      ConfigError: with one sentence.
    """
    given = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument} is not of the form key=value.")
        given[key] = value
    taken = {"cells", "seeds", "runs", "out", "show", *own}
    show = given.get("show")
    if show not in (None, "commands"):
        raise ConfigError(f"show={show} is not known; choose show=commands.")
    cells = default
    if "cells" in given:
        cells = tuple(itertools.chain(*(_cells(text, default) for text in _split(given["cells"]))))
    return Request(
        figure,
        tuple(dict.fromkeys(cells)),
        whole(given.get("seeds", 5), "seeds"),
        tuple(f"{key}={value}" for key, value in given.items() if key not in taken),
        {key: given.get(key, value) for key, value in own.items()},
        Path(given.get("runs", "runs")),
        Path(given.get("out", f"results/{figure}")),
        show is not None,
        " ".join([f"python -m experiments.{figure}", *arguments]),
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
    algos = _chosen(places, 1, "algo", tuple(configuration.ALGOS))
    schemes = _chosen(places, 2, "sharing", tuple(sharing.TABLE))
    found = []
    for env in places[0].split("+"):
        usual = [cell for cell in default if cell.env == env] or default
        found += [
            Cell(env, algo, scheme)
            for algo in algos or dict.fromkeys(cell.algo for cell in usual)
            for scheme in schemes or dict.fromkeys(cell.sharing for cell in usual)
        ]
    return found


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
        if not (sharing.TABLE[scheme].clustered and env in TWO_AGENTS)
    )


def plan(request_: Request, cells: tuple[Cell, ...] | None = None) -> list[Training]:
    """The runs of a figure, in an order in which each finds the checkpoint that it begins from."""
    cells = request_.cells if cells is None else cells
    trainings = [_training(request_, cell) for cell in cells]
    trainings.sort(key=lambda training: training.config.switch_at is not None)
    planned: list[Training] = []
    for training in trainings:
        donor = _donor(training, planned)
        if donor is not None:
            step = training.config.switch_at
            if donor.config.switch_at is None and step not in donor.config.keep_at:
                kept = sorted({*donor.config.keep_at, step})
                words = [word for word in donor.words if not word.startswith("keep_at=")]
                words.append(f"keep_at={kept}".replace(" ", ""))
                planned[planned.index(donor)] = donor = _load(request_, donor.cell, words)
            words = [word for word in training.words if not word.startswith("switch_at=")]
            training = _load(request_, training.cell, [*words, f"init_from={donor.out}@{step}"])
        planned.append(training)
    order = [_training(request_, cell).cell for cell in cells]
    return sorted(planned, key=lambda training: (_begins(training), order.index(training.cell)))


def switches(request_: Request, cell: Cell, shares: tuple[float, ...]) -> tuple[Cell, ...]:
    """The cell with its switch at these shares of the run, each on a whole update."""
    config = _training(request_, cell).config
    updates = [min(max(round(s * config.num_updates), 1), config.num_updates - 1) for s in shares]
    return tuple(
        dataclasses.replace(cell, keys=(*cell.keys, f"switch_at={update * config.batch}"))
        for update in dict.fromkeys(updates)
    )


def varied(cell: Cell, *values: str) -> tuple[Cell, ...]:
    """The cell with each of some further `key=value` words."""
    return tuple(dataclasses.replace(cell, keys=(*cell.keys, value)) for value in values)


def _begins(training):
    return training.config.init_from is not None


def _training(request_, cell):
    words = [f"env={cell.env}", f"algo={cell.algo}", f"sharing={cell.sharing}"]
    own = {_key(word) for word in cell.keys}
    words += [word for word in request_.keys if _applies(word, cell) and _key(word) not in own]
    return _load(request_, cell, [*words, *cell.keys, f"num_seeds={request_.seeds}"])


def _key(word):
    return word.lstrip("+").partition("=")[0]


def _applies(word, cell):
    """Whether a key means something to a cell: a second phase's keys need one."""
    key = _key(word)
    named = sharing.TABLE[cell.sharing]
    if key in _SECOND or key.startswith("pretrain."):
        return named.phases > 1
    if key == "sharing.clusters":
        return named.clustered
    return not key.startswith("sharing.") or named.phases > 1


def _load(request_, cell, words):
    config = configuration.load(list(words))
    out = request_.runs / Path(config.out).name
    return Training(cell, (*words, f"out={out}"), dataclasses.replace(config, out=str(out)))


def _donor(training, planned):
    """A run whose checkpoint at the switch is what this one's pretraining would end in."""
    config = training.config
    if config.switch_at is None or config.switch_when is not None or config.init_from is not None:
        return None
    for other in planned:
        there = other.config
        if there.init_from is not None or _start(there) != _start(config):
            continue
        if (
            there.switch_at is None
            and there.total_steps >= config.switch_at
            and _keeps(other, config)
        ):
            return other
        if there.switch_at == config.switch_at and there.switch_when is None:
            return other
    return None


def _start(config):
    """What decides the first phase."""
    name = config.sharing["name"]
    return (
        config.env, dataclasses.asdict(config.algo_of(0)), config.network, config.critic_sharing,
        sharing.TABLE[name].pretraining or name, config.sharing.get("clusters"), config.seeds,
    )  # fmt: skip


def _keeps(other, config):
    """Whether a run will have the checkpoint: it is still to come, or was kept."""
    folder = other.out / "checkpoints"
    update = config.switch_at // config.batch
    if not folder.is_dir():
        return True
    there = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return update in there or update > max(there, default=0)


def train(trainings: list[Training]) -> None:
    """Trains what is not finished yet, run after run.

    Raises:
      Interrupted: a signal came; the run under way has saved itself.
      ConfigError, TrainingError: as lorasa_jax.run does.
    """
    for number, training in enumerate(trainings, 1):
        if (training.out / "summary.json").exists():
            continue
        print(f"[{number}/{len(trainings)}] {training.cell}", flush=True)
        if run.execute(training.config) is None:
            raise Interrupted
        jax.clear_caches()  # programs of other runs would pile up


def ready(request_: Request, cells: tuple[Cell, ...] | None = None) -> list[Training] | None:
    """The finished runs of a figure, trained where need be; None where commands were asked for."""
    trainings = plan(request_, cells)
    if request_.show:
        for training in trainings:
            print(training.command)
        return None
    train(trainings)
    return trainings
