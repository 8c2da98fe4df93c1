"""Runs in folders that cannot be written are evaluated, told and found finished all the same."""

import json
import os
import stat

import pytest
from tiny_runs import TINY, settings, train

from lorasa_jax import evaluate
from lorasa_jax.training import run_folder


def state_of(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture
def readonly(finished, copy, monkeypatch):
    """A finished run in which nothing can be written, by root neither."""
    out = copy(finished)
    for path in (out, *out.rglob("*")):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    if os.geteuid() == 0:
        refuse_below(out, monkeypatch)
    yield out
    monkeypatch.undo()
    for path in (out, *out.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def refuse_below(folder, monkeypatch):
    """Opening to write, making, renaming and deleting below a folder are refused."""
    access, open_ = os.access, os.open

    def below(path):
        return str(path).startswith(str(folder))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    def opened(path, flags, *rest, **more):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return refuse(path) if writes and below(path) else open_(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "access", lambda p, m: access(p, m) and not (m & os.W_OK and below(p)))
    for name in ("mkdir", "unlink", "rename", "replace", "rmdir", "utime"):
        real = getattr(os, name)

        def guarded(path, *rest, _real=real, **more):
            return refuse(path) if below(path) else _real(path, *rest, **more)

        monkeypatch.setattr(os, name, guarded)


@pytest.mark.full
def test_an_evaluation_is_printed_and_written_where_it_is_told(readonly, tmp_path, capsys):
    before = state_of(readonly)
    evaluate.main([f"out={readonly}", "episodes=2"])
    said = capsys.readouterr().out
    assert "2 greedy episodes" in said and "to=DIR writes them elsewhere" in said
    evaluate.main([f"out={readonly}", "episodes=2", f"to={tmp_path / 'told'}"])
    assert [path.name for path in (tmp_path / "told").iterdir()] == ["evaluation.json"]
    assert state_of(readonly) == before


def test_a_finished_run_is_told_again(readonly, finished, capsys):
    before = state_of(readonly)
    summary = train(readonly)
    assert "is already finished" in capsys.readouterr().out
    assert summary["eval_return"] == train(finished)["eval_return"]
    assert state_of(readonly) == before


def test_a_place_that_cannot_be_written_is_refused(readonly, capsys):
    with pytest.raises(SystemExit) as left:
        evaluate.main([f"out={readonly}", "episodes=2", f"to={readonly / 'x'}"])
    assert left.value.code == 2
    assert "cannot be written (Permission denied)" in capsys.readouterr().err


def test_no_evaluation_overwrites_another(finished, copy):
    out = copy(finished)
    for episodes in (1, 2):
        evaluate.main([f"out={out}", f"episodes={episodes}"])
    names = ["evaluation.json", "evaluation-2.json"]
    assert [json.loads((out / name).read_text())["episodes"] for name in names] == [1, 2]
    (out / "episode-3.html").write_text("of one before")
    assert evaluate.write(evaluate.Options(out=str(out)), {}) == out / "evaluation-4.json"


def test_asking_whether_a_run_has_begun_writes_nothing(finished, unfinished, tmp_path):
    for out in (finished, unfinished):
        before = state_of(out)
        assert run_folder.begun(out, settings(out)) is not None
        assert state_of(out) == before
    assert run_folder.begun(tmp_path / "new", settings(tmp_path / "new")) is None
    assert list(tmp_path.iterdir()) == [] and TINY
