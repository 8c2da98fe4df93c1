"""Whatever the folder is called, a run's checkpoints can be read, or it is refused at once."""

import os

import pytest
from tiny_runs import LONG, leaves, outcome, rows, train

from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training import checkpoint, stored

pytestmark = pytest.mark.usefixtures("compiled_once")

NAMES = [
    "hop[x=1]", "back\\slash", "a*b", "what?", "new\nline", "sp ace", "per%20cent", "quo'te\"",
    "größe", "#hash", "{b}", "~tilde", "gs:", "$HOME", "-dash", "[", "]", "..dots", "a:b", "7",
    "tab\tx", "!x", "\u2028", "*",
]  # fmt: skip


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parent", [False, True])
def test_a_folder_of_any_name_holds_checkpoints(name, parent, tmp_path):
    folder = tmp_path / name / "run" if parent else tmp_path / name
    folder.mkdir(parents=True)
    checkpoint.prove(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES if LONG else ["hop[x=1]", "back\\slash"])
def test_a_run_in_such_a_folder_ends_as_any_other(name, tmp_path, end):
    out = tmp_path / name / "run"
    assert train(out, stop_after=3) is None
    train(out)
    assert (rows(out), leaves(out)) == end


def test_a_path_that_cannot_work_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    def misread(self, *_):
        raise checkpoint.DamagedError("nothing is there")

    monkeypatch.setattr(checkpoint.Checkpoints, "read", misread)
    assert "cannot hold checkpoints" in outcome(tmp_path / "run")
    assert not (tmp_path / "run" / stored.CONFIG).exists()
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="is no text in UTF-8"):
        train(tmp_path / os.fsdecode(b"\xff"))


def test_the_first_checkpoint_of_a_process_is_read_back(tmp_path, monkeypatch):
    write = checkpoint.digests.write

    def flipped(folder, update):
        write(folder, update)
        if folder.parent.parent.name == "run":  # not where a small one is tried before
            data = max(folder.rglob("state/d/*"), key=lambda path: path.stat().st_size)
            content = bytearray(data.read_bytes())
            content[len(content) // 2] ^= 1
            data.write_bytes(content)

    monkeypatch.setattr(checkpoint.digests, "write", flipped)
    with pytest.raises(TrainingError, match="cannot be read back"):
        train(tmp_path / "run")
    assert checkpoint.updates(tmp_path / "run" / "checkpoints") == [1]
