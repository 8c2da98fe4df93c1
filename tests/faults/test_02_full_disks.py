"""A disk that is full at any write of a run: one sentence, and what was saved is kept.

A file system of few bytes where the tests may mount one, else every file of the run is refused
in turn.
"""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_runs import LONG, leaves, outcome, rows, train

pytestmark = pytest.mark.usefixtures("compiled_once")

SIZES = [8 * 2**i for i in range(9)]  # KiB
WRITES = range(0, 60) if LONG else range(0, 60, 6)


@pytest.fixture
def disk(tmp_path):
    """disk(kib): a folder on a file system of so many bytes; a skip where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(kib):
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)],
            capture_output=True,
        )  # fmt: skip
        if made.returncode:
            pytest.skip("no file system can be mounted here")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


@pytest.mark.full
@pytest.mark.parametrize("kib", SIZES)
def test_a_full_file_system_ends_in_a_sentence(kib, disk, tmp_path, end):
    out = disk(kib) / "run"
    told = outcome(out)
    assert told is None or str(out) in told
    room = tmp_path / "room" / "run"
    shutil.copytree(out, room) if out.exists() else None
    train(room)
    assert (rows(room), leaves(room)) == end


class Full:
    """Refuses the n-th write to a run's own files and all after it, as a full disk does."""

    def __init__(self, folder: Path, writes: int):
        self.folder, self.left, self.fsync, self.open = str(folder), writes, os.fsync, os.open

    def spend(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def synced(self, number):
        self.spend()
        return self.fsync(number)


@pytest.mark.full
@pytest.mark.sample(2)
@pytest.mark.parametrize("writes", WRITES)
def test_a_disk_that_is_full_at_any_write_ends_in_a_sentence(writes, tmp_path, end, monkeypatch):
    out = tmp_path / "run"
    monkeypatch.setattr(os, "fsync", Full(out, writes).synced)
    told = outcome(out)
    assert told is None or str(out) in told
    monkeypatch.undo()
    train(out)
    assert (rows(out), leaves(out)) == end
