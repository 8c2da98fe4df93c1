"""A run's identity on W&B lies in its folder: neither the path nor how it was typed decides it."""

import dataclasses
import shutil

import pytest
from tiny_runs import settings

from lorasa_jax.training import identity as who_is
from lorasa_jax.training import stored


def identity(out):
    return who_is.identity(dataclasses.replace(settings("x"), out=str(out)))


def test_two_runs_of_one_name_differ_and_each_stays_who_it_is(tmp_path, monkeypatch):
    (tmp_path / "a" / "run").mkdir(parents=True)
    (tmp_path / "b" / "run").mkdir(parents=True)
    ids = []
    for folder in ("a", "b"):
        monkeypatch.chdir(tmp_path / folder)
        ids.append(identity("run"))
    assert ids[0].name == ids[1].name == "run" and ids[0].id != ids[1].id
    monkeypatch.chdir(tmp_path)
    typed = ["a/run", "./a/run", "a/../a/run", tmp_path / "a" / "run"]
    assert {identity(out) for out in typed} == {ids[0]}
    shutil.move(tmp_path / "a", tmp_path / "c")
    assert identity("c/run") == ids[0]


@pytest.mark.parametrize("name", ["run", "a b", "größe", "[x=1]", "x:y", "n" * 200])
def test_the_folder_itself_may_be_the_run(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    who = identity(".")
    assert who.name == name and identity(tmp_path / name) == who
    assert set(who.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.") and len(who.id) < 80


def test_runs_that_were_logged_before_keep_their_id(tmp_path):
    out = tmp_path / "moved" / "here"
    (out / "wandb").mkdir(parents=True)
    (out / stored.CONFIG).write_text("env: {name: x}\nout: runs/game\n")
    assert identity(out) == who_is.Identity("game-d1522e", "here")
    assert identity(out).id == who_is.kept_identity(out).id


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": ""}', '{"id": 3, "name": "x"}'])
def test_a_damaged_identity_is_made_anew(tmp_path, text):
    (tmp_path / who_is.FILE).write_text(text)
    assert identity(tmp_path) == who_is.kept_identity(tmp_path)
