import json

import pytest

from experiments import smax_speed
from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError


def test_rates_and_ratios_are_medians_over_turns(monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 5.0, 5.0, 13.0, 13.0, 15.0, 15.0, 21.0, 21.0, 22.0])
    monkeypatch.setattr(smax_speed.time, "perf_counter", lambda: next(clock))
    found = smax_speed.in_turns({"upstream": lambda: 0, "smax": lambda: 0}, 60, 3)
    assert found["upstream"] == 10.0  # of 4, 8 and 6 seconds
    assert found["smax"] == 60.0  # of 1, 2 and 1
    assert found["smax ratio"] == 4.0  # of 4, 4 and 6


def test_training_has_jaxmarls_settings():
    chunks = []
    for overrides in smax_speed.OURS.values():
        config = configuration.load([*smax_speed.TRAINING, *overrides])
        chunks.append(config.algo.chunk_length)
    assert chunks == [128, 128, 128, 16]
    assert (config.algo.num_envs, config.algo.rollout_length) == (128, 128)
    assert (config.algo.epochs, config.algo.minibatches) == (4, 4)
    assert config.network.hidden == 128 and config.env["max_steps"] == 100


@pytest.mark.full
def test_a_table_is_written(tmp_path, monkeypatch):
    row = {"upstream": 1.0, "smax": 2.0, "smax ratio": 2.0, "smac": 3.0, "smac ratio": 3.0,
           "load": 0.0}  # fmt: skip
    monkeypatch.setattr(smax_speed, "environments", lambda name: row)
    smax_speed.main(["maps=3s5z", f"out={tmp_path}"])
    assert json.loads((tmp_path / "smax_speed.json").read_text())["environments"] == {"3s5z": row}
    assert "| 3s5z, random play | 1 | 2 | 2.00 |" in (tmp_path / "smax_speed.md").read_text()


@pytest.mark.parametrize(
    "argument, told",
    [
        ("maps=9z", "not known"),
        ("script=none.py", "no file"),
        ("map=3", "unknown key map; did you mean maps"),
    ],
)
def test_refusals(argument, told):
    with pytest.raises(ConfigError, match=told):
        smax_speed.main([argument])
