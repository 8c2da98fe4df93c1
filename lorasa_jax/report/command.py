"""The command line: `python -m lorasa_jax.report RUN... [key=value ...]`.

Writes the results of finished runs as one HTML page; several runs are compared.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorasa_jax import keys, terminal
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.values import LARGEST_SEED


@dataclass(frozen=True)
class Options:
    """runs: folders of finished runs; the rest are keys."""

    runs: tuple[str, ...] = ()
    out: str | None = keys.key(None, "the page; null: <first run>/report.html")
    policy: int | None = keys.key(
        None, "the seed whose agents are looked at; null: each run's first", least=0,
        most=LARGEST_SEED,
    )  # fmt: skip
    wandb: bool = keys.key(False, "make a report of the same panels on Weights & Biases too")
    plugins: tuple[str, ...] = keys.plugins()


def parse(arguments: list[str]) -> Options:
    """Options from RUN and `key=value` arguments; ConfigError names what is wrong."""
    folders = [argument for argument in arguments if "=" not in argument or Path(argument).is_dir()]
    chosen = keys.parse(Options, [argument for argument in arguments if argument not in folders])
    if not folders:
        raise ConfigError("give one RUN or more, the folders of finished runs.")
    places = [Path(folder).resolve() for folder in folders]
    duplicates = [
        folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1
    ]
    if duplicates:
        raise ConfigError(f"{duplicates[0]} is given twice; give each run once.")
    return dataclasses.replace(chosen, runs=tuple(folders))


def names(folders: tuple[str, ...]) -> list[str]:
    """A name for every run: its folder, with as many parents as make all names different."""
    parts = [Path(folder).resolve().parts for folder in folders]
    labels = []
    for count in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-count:]) for part in parts]
        if len(set(labels)) == len(labels):
            break
    return labels


def report(options: Options, say: Callable[[str], None]) -> tuple[Path, str | None]:
    """Writes the page; returns its path and, where one was asked for, the W&B report's address.

    Raises:
      ConfigError: a run or the page's place is not as it must be, or W&B cannot be reached.
    """
    from lorasa_jax.config import plugins
    from lorasa_jax.report import page, story

    plugins.load(list(options.plugins))
    path = Path(options.out or Path(options.runs[0], "report.html"))
    for folder in options.runs:  # before anything takes long
        story.check(Path(folder), options.policy)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"out={path} cannot be written; give a file in a folder that exists.")
    if options.wandb:
        from lorasa_jax.report import online

        online.require_account()
        online.require_logged(options.runs)
    stories = [
        story.tell(Path(folder), name, options.policy, say)
        for folder, name in zip(options.runs, names(options.runs), strict=True)
    ]
    text = page.page(stories)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"out={path} cannot be written ({error.strerror}).") from error
    if not options.wandb:
        return path, None
    from lorasa_jax.report import online

    say("uploading to Weights & Biases")
    return path, online.publish(stories, text)


def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 where something was refused."""
    from rich.console import Console

    def say(text):
        Console(highlight=False).print(text, markup=False, soft_wrap=True)

    arguments = sys.argv[1:] if arguments is None else arguments
    keys.help_and_leave(arguments, Options, "python -m lorasa_jax.report RUN... KEY=VALUE ...")
    with terminal.program("lorasa_jax.report"):
        path, address = report(parse(arguments), say)
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
        if address:
            say(address)
