"""More steps in the same folder: the run goes on as one that was to be so long from the start."""

import pytest
from omegaconf import OmegaConf
from tiny_runs import leaves, outcome, rows, train

from lorasa_jax.training import runs, stored

pytestmark = pytest.mark.usefixtures("compiled_once")

TWO = ["env=specialisation_2", "sharing=ps_lora", "switch_at=24"]


@pytest.mark.sample(2, rest="long")
@pytest.mark.full
@pytest.mark.parametrize("phases", ["one", "two"])
@pytest.mark.parametrize("ended", [True, False])
def test_it_ends_as_a_run_of_that_length(phases, ended, tmp_path, capsys):
    """Also where it had not ended yet, and where `switch_at` is not said again."""
    words = TWO if phases == "two" else []
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(whole, *words, "total_steps=64")
    train(out, *words, stop_after=None if ended else 4)
    train(out, *words[:2], "total_steps=64")
    assert (rows(out), leaves(out)) == (rows(whole), leaves(whole))
    summary = stored.summary(out)
    assert summary["env_steps"] == 64 == runs.configured(out).total_steps
    assert (out / "summary-48.json").exists() == ended
    assert summary["switched_at"] == (24 if words else None)
    capsys.readouterr()
    train(out, *words[:2], "total_steps=64")
    assert "already finished" in capsys.readouterr().out


@pytest.mark.full
def test_it_says_why_not(finished, copy, tmp_path):
    out = copy(finished)
    before = (out / "config.yaml").read_text()
    assert "total_steps (48 there)" in outcome(out, "total_steps=40")
    assert "algo.clip (0.2 there)" in outcome(out, "total_steps=64", "algo.clip=0.1")
    assert (out / "config.yaml").read_text() == before
    tree = OmegaConf.create(before)
    tree.algo.lr_decay = "linear"
    (out / "config.yaml").write_text(OmegaConf.to_yaml(tree))
    told = outcome(out, "total_steps=64", "algo.lr_decay=linear")
    assert "total_steps=64 cannot prolong the run" in told and "algo.lr_decay=linear" in told


@pytest.mark.full
def test_a_switch_elsewhere_is_another_run(tmp_path):
    out = tmp_path / "run"
    train(out, *TWO)
    assert "switch_at (24 there)" in outcome(out, *TWO[:2], "switch_at=32", "total_steps=64")


@pytest.mark.full
def test_a_prolonging_that_was_killed_at_once_is_repeated(finished, end, copy, tmp_path):
    """The configuration says more steps already, the summary is still that of the shorter run."""
    out = copy(finished)
    text = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(text.replace("total_steps: 48", "total_steps: 56"))
    assert train(out, "total_steps=56")["env_steps"] == 56
    assert rows(out)[:7] == end[0] and leaves(out, 48) == end[1]
