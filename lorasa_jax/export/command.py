"""The command line: `python -m lorasa_jax.export out=RUN [key=value ...]`."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lorasa_jax import keys, terminal
from lorasa_jax.config import plugins
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import adapters, graph, source, stablehlo, tensors
from lorasa_jax.export.policy import CARD
from lorasa_jax.files import new_folder, refuse_link
from lorasa_jax.learn.finished import Policy
from lorasa_jax.values import EXACT, LARGEST_SEED


class Format(NamedTuple):
    """write(folder, policy) -> a dictionary an agent; use: how to call what it wrote."""

    write: Callable[[Path, Policy], list[dict]]
    use: str


FORMATS = {
    "safetensors": Format(tensors.write, tensors.USE),
    "stablehlo": Format(stablehlo.write, stablehlo.USE),
    "onnx": Format(graph.write, graph.USE),
    "adapters": Format(adapters.write, adapters.USE),
}


@dataclass(frozen=True)
class Options:
    """What is exported, how, and where to."""

    out: str = keys.key("", "the run's folder")
    step: int | None = keys.key(
        None, "environment steps of a checkpoint; null: the run's end", least=0, most=EXACT
    )
    policy: int | None = keys.key(
        None, "one of the run's seeds, needed where it has several", least=0, most=LARGEST_SEED
    )
    format: str = keys.key("safetensors", "what is written", choices=tuple(FORMATS))
    to: str | None = keys.key(
        None, "the new folder; null: RUN/exports/<format>-seed<seed>-step<step>"
    )
    plugins: tuple[str, ...] = keys.plugins()


def parse(arguments: list[str]) -> Options:
    """Options from `key=value` arguments; ConfigError names what is wrong."""
    return keys.parse(Options, arguments, need="out")


def export(options: Options) -> Path:
    """Writes the policy that `options` choose, and returns its folder.

    Raises:
      ConfigError: the run, the checkpoint or the folder is not as it must be.
    """
    plugins.load(list(options.plugins))
    policy = source.read(options.out, options.step, options.policy)
    if policy.team.actor.by_type:
        raise ConfigError(
            f"{options.out} has adapters by types that are redrawn (sharing.by=type), and exports "
            "hold a network for each agent; use lorasa_jax.load, or train with sharing.by=agent."
        )
    name = f"{options.format}-seed{policy.seed}-step{policy.step}"
    if options.to is None:
        refuse_link(Path(options.out, "exports"))
    folder = Path(options.to or Path(options.out, "exports", name)).absolute()
    save(policy, options.format, folder)
    return folder


def save(policy: Policy, kind: str, folder: Path) -> None:
    """Writes a policy in format `kind` into a new folder, whole or not at all."""
    with new_folder(folder) as part:
        agents = FORMATS[kind].write(part, policy)
        card = source.card(policy, agents, kind, FORMATS[kind].use)
        (part / CARD).write_text(json.dumps(card, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 where something was refused."""
    from rich.console import Console

    arguments = sys.argv[1:] if arguments is None else arguments
    keys.help_and_leave(arguments, Options, "python -m lorasa_jax.export out=RUN KEY=VALUE ...")
    with terminal.program("lorasa_jax.export"):
        options = parse(arguments)
        folder = export(options)
        console = Console(highlight=False)
        console.print(f"{options.format} of {options.out}: {folder}", markup=False, soft_wrap=True)
