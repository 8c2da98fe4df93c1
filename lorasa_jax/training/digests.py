"""Digests of what was written, so that damage is told from truth when it is read.

A checkpoint's folder holds `sha256.json`: the update that it was written as, and the SHA-256 of
each of its files.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from lorasa_jax.files import write_atomically

FILE = "sha256.json"
PROVING = ".proving"  # how folders begin that `checkpoint.prove` makes


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def signed(values: dict[str, Any]) -> dict[str, Any]:
    """A dictionary for JSON with the digest of its other entries under `sha256`."""
    return {**values, "sha256": _of_values(values)}


def intact(values: dict[str, Any]) -> bool:
    """Whether a dictionary is what `signed` made; true of those that carry no digest."""
    return values.get("sha256") in (None, _of_values(values))


def _of_values(values):
    rest = {key: value for key, value in values.items() if key != "sha256"}
    return of_text(json.dumps(rest, sort_keys=True))


def write(folder: Path, update: int) -> None:
    """Writes the digest of a folder's files, read back from the disk, into the folder."""
    text = json.dumps({"update": update, "files": _of_files(folder)}, indent=1)
    write_atomically(folder / FILE, text + "\n")


def exists(folder: Path) -> bool:
    return (folder / FILE).exists()


def damage(folder: Path, update: int) -> str | None:
    """What differs between a folder and its digest, in a few words; None: nothing.

    Raises:
      OSError: something cannot be read.
    """
    try:
        noted = json.loads((folder / FILE).read_bytes())
        written_as, files = noted["update"], dict(noted["files"])
    except (ValueError, KeyError, TypeError):
        return f"its {FILE} is damaged"
    if written_as != update:
        return f"it was written as that of update {written_as}"
    present = _of_files(folder)
    for name in sorted(files.keys() | present.keys()):
        if name not in present:
            return f"{name} is missing"
        if name not in files:
            return f"{name} is not a part of it"
        if files[name] != present[name]:
            return f"{name} holds other bytes than were written"
    return None


def _of_files(folder):
    """{path: SHA-256} of a folder's files, but for hidden ones, which file systems leave."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != FILE and not path.name.startswith(".") and not path.is_dir():
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
