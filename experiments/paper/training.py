"""The runs of cells: planned so that nothing is pretrained twice, and trained once.

A finished run is not trained again and an unfinished one goes on, so that a figure's command may be
given until it is done. Cells that fine-tune begin from a checkpoint of another cell of the figure
wherever one pretrains in the same way.
"""

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import jax

from experiments.cells import Cell, Request
from lorasa_jax import config as configuration
from lorasa_jax import run, sharing
from lorasa_jax.config import Config
from lorasa_jax.config.schema import GROUPS
from lorasa_jax.errors import ConfigError

# Keys that only a second phase knows.
_SECOND = (
    "phases", "phase_optimisers", "switch_at", "switch_when", "switch_threshold",
    "switch_patience", "switch_margin",
)  # fmt: skip


class Interrupted(Exception):
    """A run was asked to stop, and has saved itself."""


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
        return self.config.command


def plan(request_: Request, cells: tuple[Cell, ...] | None = None) -> list[Training]:
    """The runs of a figure, in an order in which each finds the checkpoint that it begins from."""
    cells = request_.cells if cells is None else cells
    for word in request_.keys:
        if word.startswith("algo.") and not any(applies(word, cell) for cell in cells):
            raise ConfigError(f"{_key(word)} is not a key of any of the figure's cells; remove it.")
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


def _begins(training):
    return training.config.init_from is not None


def _training(request_, cell):
    words = [f"env={cell.env}", f"algo={cell.algo}", f"sharing={cell.sharing}"]
    varied = {_key(word) for word in cell.keys}
    words += [word for word in request_.keys if applies(word, cell) and _key(word) not in varied]
    return _load(request_, cell, [*words, *cell.keys, f"num_seeds={request_.seeds}"])


def _key(word):
    return word.lstrip("+").partition("=")[0]


def applies(word: str, cell: Cell) -> bool:
    """Whether a key means something to a cell: a second phase's keys need one.

    A key that nobody knows applies, and is refused with its run.
    """
    key = _key(word)
    if key in _SECOND or key.startswith("pretrain."):
        return len(sharing.REGISTRY.row(cell.sharing).phases) > 1
    group, _, last = key.partition(".")
    if group not in ("algo", "sharing") or not last:
        return True
    rows = GROUPS[group].rows()
    return last in GROUPS[group].row(getattr(cell, group)).defaults or not any(
        last in row.defaults for row in rows
    )


def _load(request_, cell, words):
    config = configuration.load(list(words))
    out = request_.runs / Path(config.out).name
    words = [word for word in words if not word.startswith("out=")]
    words.append(f"out={out}")
    config = dataclasses.replace(config, out=str(out), overrides=tuple(words))
    return Training(cell, tuple(words), config)


def _donor(training, planned):
    """A run whose checkpoint at the switch is what this one's pretraining would end in."""
    config = training.config
    if config.switch_at is None or config.switch_when is not None or config.init_from is not None:
        return None
    if len(config.switches) > 1:  # a list of phases, or a way of sharing with more than two
        return None
    for other in planned:
        candidate = other.config
        if candidate.init_from is not None or _start(candidate) != _start(config):
            continue
        if (
            candidate.switch_at is None
            and candidate.total_steps >= config.switch_at
            and _keeps(other, config)
        ):
            return other
        if candidate.switch_at == config.switch_at and candidate.switch_when is None:
            return other
    return None


def _start(config):
    """What decides the first phase."""
    name = config.sharing["name"]
    return (
        config.env, dataclasses.asdict(config.algo_of(0)), config.network, config.critic_sharing,
        sharing.REGISTRY.row(name).phases[0].scheme or name, config.sharing.get("clusters"),
        config.seeds,
    )  # fmt: skip


def _keeps(other, config):
    """Whether a run will have the checkpoint: it is still to come, or was kept."""
    folder = other.out / "checkpoints"
    update = config.switch_at // config.batch
    if not folder.is_dir():
        return True
    stored = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return update in stored or update > max(stored, default=0)


def train(trainings: list[Training]) -> None:
    """Trains what is not finished yet, run after run.

    Raises:
      Interrupted: a signal came; the run under way has saved itself.
      ConfigError, TrainingError: as lorasa_jax.run does.
    """
    left = [one.config for one in trainings if not (one.out / "summary.json").exists()]
    if left:
        steps = sum(config.total_steps * config.num_seeds for config in left)
        print(f"{len(left)} of {len(trainings)} runs to train, {steps:,} steps in all", flush=True)
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
        for begins, group in itertools.groupby(trainings, _begins):
            if begins:
                print("# when those have finished:")
            for training in group:
                print(training.command)
        return None
    train(trainings)
    return trainings
