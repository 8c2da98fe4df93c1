"""Weights & Biases without an account: what a run left offline, and a report's object."""

import dataclasses
import json
import os
import shutil
import struct

import numpy as np
import pytest
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record

from lorasa_jax.report import command, online, story
from lorasa_jax.training import reporting, runs

HEADER = b":W&B"  # then a magic number of 16 bits and a version of 8
BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    """All records of a .wandb file: a log in LevelDB's format of `Record` messages.

    A record is cut into pieces, none of which crosses the border of a block; each is told by a
    checksum (4 bytes), its length (2) and its kind (1). A block ends in zeros where none fits.
    """
    data = path.read_bytes()
    assert data.startswith(HEADER)
    found, record, place = [], b"", 7
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if kind in (FULL, FIRST):  # what came before was given up
            record = b""
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (FULL, LAST):
            found.append(Record.FromString(record))
            record = b""
    return found


def values(items):
    """{key: value} of items of a history, a summary or a configuration."""
    return {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items
    }  # fmt: skip


@pytest.fixture(scope="module")
def logged(train, tmp_path_factory):
    """The folder of a run of two seeds that was told to W&B offline."""
    out = tmp_path_factory.mktemp("logged") / "game"
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("WANDB_SILENT", "true")
    overrides = "logger=wandb", "logger.project=walkers", "sharing=ps_lora", "switch_at=20"
    train("shared", out, *overrides, "num_seeds=2")
    patch.undo()
    return out


@pytest.fixture(scope="module")
def written(logged):
    """{seed: records}."""
    paths = sorted((logged / "wandb").glob("offline-run-*/*.wandb"))
    assert len(paths) == 2
    return {int(path.stem.split("-")[-1]): records(path) for path in paths}


def of_kind(found, kind):
    return [
        getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind
    ]  # fmt: skip


@pytest.mark.full
def test_the_runs_are_named_and_grouped(written, logged):
    assert set(written) == {4, 5}
    for seed, found in written.items():
        run = of_kind(found, "run")[0]
        assert (run.project, run.run_group, run.display_name) == ("walkers", "game", f"game-{seed}")
        assert sorted(run.tags) == ["mappo", "ps_lora", "specialisation_2"]
        assert of_kind(found, "exit")[0].exit_code == 0


@pytest.mark.full
def test_the_configuration_is_the_runs(written, logged):
    wanted = json.loads(json.dumps(runs.configured(logged).to_dict()))
    for seed, found in written.items():
        config = values(of_kind(found, "run")[0].config.update)
        config.pop("_wandb")
        # The folder is written as an absolute path or as it was given.
        assert config == {**wanted, "run_seed": seed, "out": config["out"]}
        assert os.path.samefile(config["out"], logged)


@pytest.mark.full
def test_the_history_is_that_of_the_metrics(written, logged):
    rows = reporting.read_metrics(logged)
    for seed, found in written.items():
        own = [row for row in rows if row["seed"] == seed]
        history = of_kind(found, "history")
        assert [line.step.num for line in history] == [0, 20, 40, 60]
        for line, row in zip(history, own, strict=True):
            told = values(line.item)
            for key, value in row.items():
                assert told.get(key) == value, (seed, row["env_steps"], key)


@pytest.mark.full
def test_the_summary_is_the_runs(written, logged):
    wanted = runs.summary(logged)
    for found in written.values():
        told = {}
        for summary in of_kind(found, "summary"):
            told |= values(summary.update)
        assert told["final_return"] == wanted["eval_return"]
        last = values(of_kind(found, "history")[-1].item)
        assert last["curve._type"] == "image-file"
        assert (last["curve.width"], last["curve.height"]) == (768, 432)


# --- reports -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(logged):
    return story.tell(logged, "game", None, lambda text: None)


@pytest.fixture
def board(told, monkeypatch):
    """The report on two runs, one of which has win rates; nobody may ask the network."""
    logger = {"name": "wandb", "project": "battles", "entity": "army", "group": "it's"}
    battle = dataclasses.replace(
        told, name="battle", config={**told.config, "logger": logger}, phases=[],
        summary={**told.summary, "env": "smax_3m", "win_rate": 0.5},
        curves={**told.curves, "win_rate": told.curves["eval_return"]},
    )  # fmt: skip
    interface = pytest.importorskip("wandb_workspaces.reports.v2.interface")

    def asked():
        raise AssertionError("the network was asked")

    monkeypatch.setattr(interface, "_get_api", asked)
    return online.board([told, battle], "team", "walkers")


def of_type(board, name):
    return [block for block in board.blocks if type(block).__name__ == name]


@pytest.mark.full
def test_a_report_says_what_it_is(board):
    assert (board.entity, board.project, board.title) == ("team", "walkers", "game and battle")
    headings = ["Learning curves", "Losses and entropy", "Who the agents became"]
    assert [block.text for block in of_type(board, "H1")] == headings


@pytest.mark.full
def test_its_lines_are_the_metrics(board):
    curves, losses, pages = of_type(board, "PanelGrid")
    assert [panel.title for panel in curves.panels] == ["Return", "Win rate"]
    names = [str(panel.y[0]) for panel in (*curves.panels, *losses.panels)]
    wanted = ["eval_return", "win_rate", *online.LOSSES]  # discrete actions have no spread
    assert all(name in said for name, said in zip(wanted, names, strict=True))
    assert {panel.groupby_aggfunc for panel in curves.panels} == {"median"}
    (page,) = pages.panels
    assert page.media_keys == [online.PAGE]
    for grid in (curves, losses):
        places = [(panel.layout.x, panel.layout.y) for panel in grid.panels]
        assert len(set(places)) == len(places)


@pytest.mark.full
def test_its_runsets_find_every_seed_of_a_run(board):
    from wandb_workspaces.expr import expr_to_filters

    first, second = of_type(board, "PanelGrid")[0].runsets
    assert (first.name, first.entity, first.project) == ("game", "team", "walkers")
    assert (second.name, second.entity, second.project) == ("battle", "army", "battles")
    assert first.groupby == ["Group"]
    conditions = [(x.key.name, x.op, x.value) for x in expr_to_filters(first.filters).filters]
    assert conditions == [
        ("group", "=", "game"), ("tags", "IN", ["specialisation_2"]), ("tags", "IN", ["mappo"]),
        ("tags", "IN", ["ps_lora"]),
    ]  # fmt: skip
    conditions = expr_to_filters(second.filters).filters
    assert [x.value for x in conditions] == ["it's", ["smax_3m"], ["mappo"], ["ps_lora"]]


@pytest.mark.full
def test_its_facts_are_the_stories(board, told):
    first, second = (block.text for block in of_type(board, "P"))
    assert first.startswith("game: return ") and "finetune from step 20" in first
    assert f"System Neural Diversity {told.snd:.3g}" in first and "win rate" not in first
    assert "win rate 50.0%" in second and "finetune" not in second
    assert np.isclose(float(first.split()[2].rstrip(",")), told.summary["eval_return"], rtol=1e-4)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        command.main([*map(str, arguments), "wandb=true"])
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.full
def test_without_an_account_one_sentence_says_what_to_do(logged, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert "unset WANDB_MODE=offline" in refused(capsys, logged)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert "give `wandb login`" in refused(capsys, logged)
    assert not (logged / "report.html").exists()


def test_a_run_that_was_not_logged_is_refused(logged, capsys, monkeypatch, tmp_path):
    pytest.importorskip("wandb_workspaces")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    copy = shutil.copytree(logged, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb"))
    config = OmegaConf.load(copy / "config.yaml")
    config.logger = {"name": "local"}
    OmegaConf.save(config, copy / "config.yaml")
    assert "has logger=local; train it with logger=wandb" in refused(capsys, copy)


@pytest.mark.full
def test_a_refusal_by_the_service_is_one_sentence(told, monkeypatch):
    def unreachable(**options):
        raise OSError("no route\nto host")

    monkeypatch.setattr(online.wandb, "init", unreachable)
    with pytest.raises(runs.ConfigError, match=r"refused the report \(no route to host\)"):
        online.publish([told], "page")
