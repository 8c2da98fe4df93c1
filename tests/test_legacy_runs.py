"""Runs of version 0.1.0 (commit 51ec001) are what they were: read, played, exported, continued.

They were made there, each with `eval_every=1 checkpoint_every=1 eval_episodes=2` and networks of
width 4: `continuous` is reacher_2x1 under ps_lora with a linear head of spreads, `discrete`
specialisation_2 under a2po and ps.
"""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import evaluate
from lorasa_jax.export import command
from lorasa_jax.export.policy import load
from lorasa_jax.training import execution, reporting

HERE = Path(__file__).parent / "legacy"
COMMANDS = {
    "continuous": (
        "env=reacher_2x1 env.engine=native sharing=ps_lora network.kind=ff network.hidden=4 "
        "algo.num_envs=2 algo.rollout_length=10 algo.epochs=1 eval_episodes=2 eval_every=1 "
        "checkpoint_every=1 sharing.rank=2 total_steps=80 switch_at=40 keep_at=[60] "
        "network.log_std=linear"
    ),
    "discrete": (
        "env=specialisation_2 algo=a2po sharing=ps network.hidden=4 algo.num_envs=2 "
        "algo.rollout_length=10 algo.epochs=1 eval_episodes=2 eval_every=1 checkpoint_every=1 "
        "total_steps=80"
    ),
}


@pytest.fixture(params=COMMANDS)
def old(request, tmp_path):
    """(name, folder) of a run of then."""
    with tarfile.open(HERE / f"{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return request.param, tmp_path / request.param


@pytest.mark.full
@pytest.mark.sample(1)
def test_it_is_read_played_and_exported(old, tmp_path):
    name, out = old
    policy = lorasa_jax.load(out)
    assert policy.step == 80 and policy.statistics is None
    assert lorasa_jax.load(out, 60).step == 60
    played = evaluate.evaluate(evaluate.parse([f"out={out}", "episodes=3"]))
    assert np.isfinite(played["policies"][0]["mean"])
    to = tmp_path / "export"
    command.export(command.parse([f"out={out}", f"to={to}"]))
    heads = load(to).card["network"]["heads"]
    assert list(heads) == (["mean", "log_std"] if name == "continuous" else ["logits"])


@pytest.mark.full
@pytest.mark.sample(1)
def test_it_is_finished_and_goes_on_where_it_was_cut(old, capsys):
    name, out = old
    config = configuration.load([*COMMANDS[name].split(), f"out={out}"])
    summary = execution.execute(config)
    assert "already finished" in capsys.readouterr().out
    rows = reporting.read_metrics(out)
    (out / "summary.json").unlink()
    shutil.rmtree(out / "checkpoints" / "4")
    again = execution.execute(config)
    assert "continuing from step 60" in capsys.readouterr().out
    for before, after in zip(rows, reporting.read_metrics(out), strict=True):
        assert after["eval_return"] == pytest.approx(before["eval_return"], rel=1e-3)
        assert set(before) <= set(after)
    assert again["eval_return"] == pytest.approx(summary["eval_return"], rel=1e-3)
    assert json.loads((out / "summary.json").read_text()) == again
