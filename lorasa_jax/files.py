"""How this package writes files and folders: whole, or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorasa_jax import terminal
from lorasa_jax.errors import ConfigError

MOST_TEXT = 2**22  # bytes of a configuration or a card; those that are written have thousands


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; it takes the place of `path` if all goes well.

    Readers and crashes see the old file or the new one, nothing between. A link in the
    place of the new file is removed, not followed.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    terminal.unfinished.add(part)
    try:
        part.unlink(missing_ok=True)
        part.touch(exist_ok=False)
        yield part
        _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        terminal.unfinished.discard(part)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file by `replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which is renamed to `folder` if all went well, and else removed.

    Raises:
      ConfigError: `folder` holds something already, or the disk refuses.
    """
    if _occupied(folder):
        raise ConfigError(f"{folder} exists already; remove it, or choose another to=DIR.")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    terminal.unfinished.add(part)
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                _sync(file)
        part.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        terminal.unfinished.discard(part)


def _sync(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _occupied(folder):
    try:
        return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError:  # a folder that cannot be read is not replaced
        return True


def refuse_link(path: Path) -> None:
    """Refuses to write through a link that lies in a run's folder, to wherever it points.

    Raises:
      ConfigError: `path` is a link.
    """
    if path.is_symlink():
        raise ConfigError(
            f"{path} is a link, and nothing is written through links in a run's folder; replace "
            "it by what it points to."
        )


def read_bounded(path: Path, most: int = MOST_TEXT) -> bytes:
    """A plain file's bytes; a pipe or device, which may never end, is not read.

    Raises:
      OSError: it is no plain file, larger than `most` bytes, or cannot be read.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is no plain file", str(path))
        if status.st_size > most:
            raise OSError(0, f"it has more than {most:,} bytes", str(path))
        return file.read(most + 1)


def plain_yaml(content: bytes) -> Any:
    """What plain YAML holds: no tags, no aliases, whose expansion may have any size; `${` is text.

    Raises:
      ValueError: it is no such YAML.
    """
    text = content.decode()
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("it has aliases")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError("it is no plain YAML") from error
