"""A stranger's folder cannot act: nothing of it runs, asks the environment, or writes elsewhere."""

import json
import os
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax import evaluate, files
from lorasa_jax.config import flags, plugins
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import command as export
from lorasa_jax.export import policy as reader
from lorasa_jax.report import command as report
from lorasa_jax.training import run_folder, runs
from lorasa_jax.training.init_from import pretrained

pytestmark = pytest.mark.faults

TINY = [
    "env=specialisation_2", "algo.num_envs=32", "algo.rollout_length=20", "total_steps=128000",
]  # fmt: skip
EVIL = "import pathlib; pathlib.Path('ACTED').write_text('x')\n"


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A folder `theirs` with a run's configuration and code beside it; `mine` is all else here."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL)
    (folder / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "swordfish")
    tree = configuration.load(TINY).to_dict()
    write(folder, {**tree, "plugins": ["theirs.evil"]})
    yield folder
    assert not Path("ACTED").exists()
    assert "theirs.evil" not in sys.modules


def write(folder, tree):
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(tree))


def saved(folder):
    return OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))


READERS = {
    "evaluate": lambda: evaluate.evaluate(evaluate.parse(["out=theirs"])),
    "export": lambda: export.export(export.parse(["out=theirs"])),
    "report": lambda: report.report(report.parse(["theirs"]), print),
    "load": lambda: runs.load("theirs"),
    "configured": lambda: runs.configured("theirs"),
    "init_from": lambda: pretrained(
        configuration.load([*TINY, "init_from=theirs@64000"])
    ),
    "config-dir": lambda: configuration.load(
        [], files=flags.Files(str(Path("theirs").resolve()), "config")
    ),
}  # fmt: skip


@pytest.mark.sample(7)
@pytest.mark.parametrize("reader_", READERS)
def test_plugins_that_a_file_names_are_not_imported(theirs, reader_):
    with pytest.raises(ConfigError, match=r"plugins=theirs\.evil would be imported") as refusal:
        READERS[reader_]()
    assert "plugins=[theirs.evil]" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_exports_card_imports_nothing_either(theirs):
    card = {
        "format": "safetensors", "format_version": 1, "agents": [], "parameters": {},
        "network": {}, "action": {}, "observation_size": 1, "env": {"name": "nowhere"},
        "run": {}, "plugins": ["theirs.evil"],
    }  # fmt: skip
    (theirs / "policy.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match="would be imported"):
        evaluate.policies(evaluate.parse(["out=theirs"]))


def test_plugins_that_the_reader_names_are_imported(tmp_path, monkeypatch):
    (tmp_path / "trusted_by_reader.py").write_text("ran = True\n")
    monkeypatch.chdir(tmp_path)
    tree = configuration.load(["env=specialisation_2"]).to_dict()
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", {**tree, "plugins": ["trusted_by_reader"]})
    plugins.load(list(evaluate.parse(["out=run", "plugins=[trusted_by_reader]"]).plugins))
    assert sys.modules["trusted_by_reader"].ran
    assert runs.configured("run").plugins == ("trusted_by_reader",)


def test_interpolations_in_a_runs_files_are_text(theirs):
    tree = saved(theirs)
    tree["plugins"], tree["out"] = [], "${oc.env:SECRET}"
    write(theirs, tree)
    assert runs.configured("theirs").out == "${oc.env:SECRET}"
    tree["seed"] = "${oc.env:SECRET}"
    write(theirs, tree)
    with pytest.raises(ConfigError) as refusal:
        runs.configured("theirs")
    assert "swordfish" not in str(refusal.value)


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", run_folder.WRITTEN)
def test_links_are_not_followed_when_a_run_writes(theirs, tmp_path, name):
    config = configuration.load(["env=specialisation_2", f"out={tmp_path / 'new'}"])
    run_folder.claim(tmp_path / "new", config)
    target = tmp_path / "mine"
    target.write_text("precious")
    (tmp_path / "new" / name).symlink_to(target)
    with pytest.raises(ConfigError, match="is a link"):
        run_folder.claim(tmp_path / "new", config)
    if name == ".lock":
        with pytest.raises(ConfigError, match="lock"), run_folder.locked(tmp_path / "new"):
            pass
    assert target.read_text() == "precious"


def test_exports_and_parts_are_not_written_through_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "exports").symlink_to(outside)
    with pytest.raises(ConfigError, match="is a link"):
        files.refuse_link(tmp_path / "exports")
    kept = tmp_path / "kept"
    kept.write_text("precious")
    (tmp_path / ".page.part.html").symlink_to(kept)
    (tmp_path / "page.html").symlink_to(kept)
    files.write_atomically(tmp_path / "page.html", "new")
    assert kept.read_text() == "precious" and not (tmp_path / "page.html").is_symlink()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", ["bomb", "fifo", "huge", "tag", "deep", "device"])
def test_what_is_read_is_bounded_before_it_is_read(theirs, kind):
    path = theirs / "config.yaml"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(2**40)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        text = {
            "bomb": BOMB,
            "tag": "a: !!python/object/apply:os.system [ls]\n",
            "deep": "[" * 9999,
        }
        path.write_text(text[kind])
    with pytest.raises(ConfigError) as refusal:
        runs.configured("theirs")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", ["../mine", "/etc/passwd", "a/../../mine", 3])
@pytest.mark.sample(4)
def test_a_card_names_no_file_outside_its_folder(theirs, file):
    with pytest.raises(ValueError, match="not in its folder"):
        reader.read_tensors(theirs, {"file": file, "sha256": ""})


def test_a_card_or_tensors_that_are_a_pipe_are_not_waited_for(theirs):
    os.mkfifo(theirs / "policy.json")
    with pytest.raises(ValueError, match="no plain file"):
        reader.load(theirs)
    os.mkfifo(theirs / "a.safetensors")
    with pytest.raises(ValueError, match="no plain file"):
        reader.read_tensors(theirs, {"file": "a.safetensors", "sha256": ""})
