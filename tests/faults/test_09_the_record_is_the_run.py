"""The record is the run: Hydra's flags agree with it, and what is recorded repeats it."""

import os
import shlex

import pytest
import yaml

from lorasa_jax import config as configuration
from lorasa_jax import run
from lorasa_jax.config import flags
from lorasa_jax.errors import ConfigError

pytestmark = pytest.mark.faults

GAME = ["env=specialisation_2", "preset=paper"]


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A folder of YAML of a user's own, beside which commands are given."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "e1.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /sharing: nps\n  - override /env: ant_4x2\n"
        "algo: {clip: 0.15, epochs: 3}\nseed: 7\npreset: tuned\nout: runs/mine\n"
    )
    (folder / "mine.yaml").write_text(
        "defaults: [lorasa, _self_]\nseed: 9\nnetwork: {hidden: 16}\nalgo: {gamma: 0.9}\n"
    )
    return folder


def shown(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", *words])
    run.main()
    return capsys.readouterr().out


def test_values_of_own_files_win_over_the_preset(conf):
    asked = flags.read(["--config-dir", "conf", "+experiment=e1"])
    config = configuration.load(asked.overrides, files=asked.files)
    assert (config.algo.clip, config.algo.epochs, config.seed) == (0.15, 3, 7)
    assert (config.sharing["name"], config.env["name"], config.preset) == (
        "nps",
        "ant_4x2",
        "tuned",
    )
    assert config.algo.gae_lambda == 0.95  # the preset's, as nothing gives another
    assert config.out == "runs/mine"


def test_a_primary_file_of_ones_own_is_trained(conf):
    asked = flags.read(["--config-dir=conf", "-cn", "mine", *GAME])
    config = configuration.load(asked.overrides, files=asked.files)
    assert (config.seed, config.network.hidden, config.algo.gamma) == (9, 16, 0.9)


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "conf", "+experiment=e1"], ["--config-name", "mine", "-cd", "conf"],
        [*GAME, "out=runs/größe"], ["init_from=runs/pre@8000", "total_steps=24000"],
    ],
)  # fmt: skip
def test_the_recorded_command_is_the_run_in_any_folder(conf, words, tmp_path, monkeypatch):
    asked = flags.read(words)
    config = configuration.load(asked.overrides, files=asked.files)
    recorded = shlex.split(config.command)
    assert recorded[:3] == ["python", "-m", "lorasa_jax.run"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = flags.read(recorded[3:])
    repeated = configuration.load(again.overrides, files=again.files)
    paths = ("init_from",)
    one, other = config.to_dict(), repeated.to_dict()
    for path in paths:
        before, after = one.pop(path), other.pop(path)
        assert before is None or os.path.isabs(after)
        assert after is None or after.endswith(before)
    if config.init_from is None:
        assert one == other
    else:  # its path is part of the default folder's name
        assert {**one, "out": ""} == {**other, "out": ""}


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "words",
    [
        GAME, ["env=ant_4x2", "preset=tuned", "network.kind=gru", "algo.epochs=8"],
        ["env=smax_3m", "algo=a2po", "preset=authors", "sharing=seps"],
    ],
)  # fmt: skip
def test_a_runs_configuration_repeats_it(tmp_path, words):
    config = configuration.load([*words, "out=runs/first"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    asked = flags.read(["--config-dir", str(tmp_path), "--config-name", "config", "out=runs/next"])
    repeated = configuration.load(asked.overrides, files=asked.files)
    assert {**repeated.to_dict(), "out": "runs/first"} == config.to_dict()


def test_spellings_of_cfg_job_agree(conf, monkeypatch, capsys):
    base = ["--config-dir", "conf", "+experiment=e1"]
    texts = {
        shown([*words, *base], monkeypatch, capsys)
        for words in (["--cfg", "job"], ["-c", "job"], ["--cfg=job"], ["-cjob"])
    } | {shown([*base, "--cfg", "job"], monkeypatch, capsys)}
    assert len(texts) == 1
    tree = yaml.safe_load(texts.pop())
    assert (tree["algo"]["clip"], tree["seed"]) == (0.15, 7)
    part = shown(["--cfg", "job", "-p", "algo", *base], monkeypatch, capsys)
    assert part.startswith("# @package algo\n") and yaml.safe_load(part) == tree["algo"]
    one = shown(["--cfg", "job", "--package=algo.clip", *base], monkeypatch, capsys)
    assert one == "0.15\n"


@pytest.mark.sample(9)
@pytest.mark.parametrize(
    "words",
    [
        ["--cfg"], ["--cfg", "jobs"], ["--nonsense"], ["-p", "algo"], ["--config-dir", "nowhere"],
        ["--config-name", "nowhere"], ["--config-path", "x"], ["--experimental-rerun", "x"],
        ["--cfg", "job", "-p", "nowhere"], ["-m", "--config-dir", "."], ["-m", "--cfg", "job"],
    ],
)  # fmt: skip
def test_other_flags_are_refused_in_one_sentence(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", *words, *GAME])
    with pytest.raises(SystemExit) as left:
        run.main()
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert len(said.splitlines()) == 1 and said.rstrip()[-1] in ".?"


@pytest.mark.sample(3)
@pytest.mark.parametrize("text", ["a: [", "seed: 3\n", "- 1\n"])
def test_files_that_cannot_be_used_are_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        configuration.load([], files=flags.Files(str(tmp_path), "mine"))
    assert "\n" not in str(refusal.value)
