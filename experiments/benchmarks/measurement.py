"""What every measurement's command does besides measuring: keys, the machine, files, tables."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorasa_jax import keys, machine
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.values import listed

OUT = "folder for the results"


def parse(kind: type, arguments: list[str], module: str) -> Any:
    """Options of type `kind` from `key=value` arguments; prints their help where it is asked for.

    Raises:
      ConfigError: with one sentence.
    """
    keys.help_and_leave(arguments, kind, f"python -m experiments.{module} KEY=VALUE ...")
    return keys.parse(kind, arguments)


def parse_known(kind: type, arguments: list[str], usage: str) -> tuple[Any, list[str]]:
    """`parse`, and the arguments whose keys are not of `kind`: those of lorasa_jax.run."""
    keys.help_and_leave(
        arguments, kind, f"{usage}\n\nKeys besides those of `python -m lorasa_jax.run --help`:"
    )
    known = [x for x in arguments if x.partition("=")[0] in keys.keys(kind)]
    return keys.parse(kind, known), [x for x in arguments if x not in known]


def names(text: str) -> list[str]:
    """The names in a text that parts them by commas."""
    return text.split(",") if text else []


def names_of(known: Collection[str], *, empty: bool = False) -> Callable[[str, str], str]:
    """A check of a key whose text holds names out of `known`, parted by commas, or perhaps none."""

    def check(text, key):
        for name in names(text) if empty else text.split(","):
            if name not in known:
                raise ConfigError(f"{key}={name} is not known; choose from {listed(known)}.")
        return text

    return check


def described(module: str, arguments: list[str], *packages: str) -> dict:
    """The command, without its folder; the device and the versions of packages."""
    words = [x for x in arguments if not x.startswith("out=")]
    return {
        "command": " ".join([f"python -m experiments.{module}", *words]),
        "device": machine.name(),
        "versions": {package: version(package) for package in packages},
    }


def folder(out: str) -> Path:
    """The folder for the results, made before anything is measured.

    Raises:
      ConfigError: the disk refuses.
    """
    path = Path(out)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error
    return path


def stored(out: Path, name: str) -> dict:
    """What an earlier call wrote; empty if there was none."""
    path = out / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(out: Path, name: str, result: dict, markdown: str) -> list[Path]:
    """Writes NAME.json and NAME.md; returns their paths."""
    paths = [out / f"{name}.json", out / f"{name}.md"]
    write_atomically(paths[0], json.dumps(result, indent=2) + "\n")
    write_atomically(paths[1], markdown)
    return paths


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (headers, *rows)]
    return [lines[0], "|" + "---|" * len(headers), *lines[1:]]
