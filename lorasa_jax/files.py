"""How this package writes files and folders: whole, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorasa_jax.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; it takes the place of `path` if all goes well.

    Readers and crashes see the old file or the new one, nothing between. A link in the
    place of the new file is removed, not followed.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        part.unlink(missing_ok=True)
        part.touch(exist_ok=False)
        yield part
        _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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


def _sync(path):
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _occupied(folder):
    try:
        return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    except OSError:  # a folder that cannot be read is not replaced
        return True
