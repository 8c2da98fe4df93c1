import dataclasses
import json

import pytest

from experiments import (
    engines,
    measurement,
    random_policy,
    schemes,
    smac_balance,
    smax_speed,
    speed,
)
from lorasa_jax import keys
from lorasa_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Options:
    maps: str = keys.key("a", "maps", check=measurement.names_of(("a", "b")))
    out: str = keys.key("outputs/x", measurement.OUT)


@pytest.mark.parametrize(
    "main",
    [x.main for x in (engines, random_policy, schemes, smac_balance, smax_speed, speed)],
)
def test_every_measurement_explains_its_keys(main, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--help"])
    assert leaving.value.code == 0
    assert "default outputs/" in capsys.readouterr().out


def test_other_keys_are_left_for_the_runs():
    arguments = ["env=ant_4x2", "maps=b,a", "out=x", "algo.clip=0.1"]
    options, rest = measurement.parse_known(Options, arguments, "")
    assert options == Options("b,a", "x") and rest == ["env=ant_4x2", "algo.clip=0.1"]
    with pytest.raises(ConfigError, match="unknown key env"):
        measurement.parse(Options, arguments, "x")


def test_names_are_refused_one_by_one():
    check = measurement.names_of(("a", "b"))
    assert check("b,a", "maps") == "b,a"
    for text, name in (("a,c", "c"), ("a,", ""), ("", "")):
        with pytest.raises(ConfigError, match=f"maps={name} is not known; choose from a, b"):
            check(text, "maps")
    assert measurement.names(measurement.names_of("ab", empty=True)("", "maps")) == []


def test_results_are_read_back_and_their_command_names_no_folder(tmp_path):
    out = measurement.folder(f"{tmp_path}/a/b")
    assert measurement.stored(out, "x") == {}
    result = measurement.described("x", ["maps=a", f"out={out}"], "jax")
    paths = measurement.write(out, "x", result, "text\n")
    assert [path.name for path in paths] == ["x.json", "x.md"]
    assert measurement.stored(out, "x") == result
    assert result["command"] == "python -m experiments.x maps=a"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        measurement.folder(f"{tmp_path}/file")


def test_maps_that_were_played_are_not_played_again(tmp_path, monkeypatch):
    row = {
        "episodes": 5, "steps": 9, "win_rate": 0.5, "lost": 0.5, "timed_out": 0.0, "length": 2.0,
        "return": 1.0, "highest_return": 2.0, "illegal": 0, "sound": True,
    }  # fmt: skip
    played = []

    def play_map(name, count, steps):
        played.append(name)
        return dict.fromkeys(smac_balance.PLAYERS, row)

    monkeypatch.setattr(smac_balance, "play_map", play_map)
    for maps, episodes in (("2s3z", 5), ("2s3z,MMM2", 5), ("MMM2", 6)):
        smac_balance.main([f"maps={maps}", f"episodes={episodes}", "steps=9", f"out={tmp_path}"])
    assert played == ["2s3z", "MMM2", "MMM2"]
    assert set(json.loads((tmp_path / "smac_balance.json").read_text())["maps"]) == {"2s3z", "MMM2"}
    text = (tmp_path / "smac_balance.md").read_text()
    assert "| 2s3z | random | 5 | 50.0% | 50.0% | 0.0% | 2.0 | 1.00 (2.00) |" in text
    assert "18 steps of random legal actions: every number was finite" in text


def test_robots_that_were_compared_are_not_played_again(tmp_path, monkeypatch):
    tests = {"length_p": 0.5, "length_z": 1.0, "return_p": 0.25, "return_z": -1.0}
    means = {"length_mean": 3.0, "length_std": 1.0, "return_mean": 2.0, "return_std": 1.0}
    played = []

    def compare(robot, count, horizon):
        played.append(robot)
        return {"episodes": count, "horizon": horizon, "native": means, "mjx": means} | tests

    monkeypatch.setattr(random_policy, "compare", compare)
    monkeypatch.setattr(random_policy, "control", lambda *_: tests)
    for robots in ("hopper", "hopper,ant"):
        random_policy.main([f"robots={robots}", "episodes=4", "horizon=6", f"out={tmp_path}"])
    assert played == ["hopper", "ant"]
    text = (tmp_path / "random_policy.md").read_text()
    assert "| hopper | 4, 6 | 3.00 (1.00) | 3.00 (1.00) | 0.500, +1.0 | 0.500, +1.0 |" in text
