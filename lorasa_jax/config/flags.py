"""Hydra's flags beside `key=value`, read by Hydra's own parser."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from lorasa_jax.errors import ConfigError

_REFUSED = {
    "config_path": "--config-path would be relative to this library; give --config-dir instead.",
    "experimental_rerun": "--experimental-rerun needs files of Hydra's that runs do not have; "
    "--config-dir RUN --config-name config out=NEW repeats a run.",
}


class Files(NamedTuple):
    """YAML files of the user's own: Hydra's --config-dir (absolute) and --config-name."""

    folder: str | None = None
    name: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """These flags as a command line has them, from any folder."""
        flags = (("--config-dir", self.folder), ("--config-name", self.name))
        return tuple(f"{flag}={value}" for flag, value in flags if value is not None)


class Flags(NamedTuple):
    """overrides: `key=value`; own: whether Hydra itself answers, as to --info."""

    overrides: list[str]
    files: Files
    help: bool
    cfg: str | None
    package: str | None
    multirun: bool
    own: bool


def read(arguments: list[str]) -> Flags:
    """The flags and overrides of a command line, in any order.

    Raises:
      ConfigError: a flag is unknown, lacks its value, or does not go with another.
    """
    parser = get_args_parser()
    setattr(parser, "error", _refuse)  # noqa: B010  # argparse prints its usage otherwise
    given = parser.parse_intermixed_args(arguments)
    for name, sentence in _REFUSED.items():
        if getattr(given, name) is not None:
            raise ConfigError(sentence)
    files = _files(given)
    if given.package is not None and given.cfg is None:
        raise ConfigError(f"--package {given.package} says what --cfg shows; add --cfg job.")
    if given.multirun:
        _check_alone(given, files)
    own = given.cfg in ("hydra", "all") or given.shell_completion or given.hydra_help
    return Flags(
        given.overrides, files, given.help, given.cfg, given.package, given.multirun,
        bool(own or given.info),
    )  # fmt: skip


def _refuse(message):
    raise ConfigError(f"{message}; --help tells what is accepted.")


def _files(given: argparse.Namespace) -> Files:
    folder = given.config_dir
    if folder is not None:
        if not Path(folder).is_dir():
            raise ConfigError(f"--config-dir={folder} is no folder; give the one of your YAML.")
        folder = str(Path(folder).resolve())
    return Files(folder, given.config_name)


def _check_alone(given, files):
    others = [*files.words, *(["--cfg"] if given.cfg else []), *(["--info"] if given.info else [])]
    if others:
        raise ConfigError(f"{others[0]} does not go with --multirun; remove it.")


def part(tree: dict[str, Any], package: str | None) -> str:
    """A configuration, or a part of it, as `--cfg job --package` prints it.

    Raises:
      ConfigError: there is no such part.
    """
    config = OmegaConf.create(tree)
    if package in (None, "_global_"):
        return OmegaConf.to_yaml(config)
    chosen = OmegaConf.select(config, str(package))
    if chosen is None:
        raise ConfigError(f"--package {package} is no part of this configuration.")
    if not OmegaConf.is_config(chosen):
        return f"{chosen}\n"
    return f"# @package {package}\n{OmegaConf.to_yaml(chosen)}"
