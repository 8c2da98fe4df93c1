"""One pretraining feeds many fine-tunings."""

import json

import jax
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import run
from lorasa_jax.errors import ConfigError

TINY = [
    "env=specialisation_2", "algo.num_envs=4", "algo.rollout_length=10", "algo.epochs=1",
    "network.hidden=8", "network.depth=1",
    "network.kind=ff", "total_steps=160", "eval_every=1", "eval_episodes=2",
]  # fmt: skip


def go(out, *overrides):
    return run.execute(configuration.load([*TINY, f"out={out}", *overrides]))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A whole run with its switch at 80 of 160 steps."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    go(out, "switch_at=80")
    return out


def banks(out, step=None):
    return lorasa_jax.load(out, step).banks


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.long
@pytest.mark.full
def test_the_same_fine_tuning_ends_in_the_same_bits(pretrained, tmp_path):
    go(tmp_path / "again", f"init_from={pretrained}@80")
    equal(banks(tmp_path / "again"), banks(pretrained))


@pytest.mark.full
def test_another_rank_starts_from_the_same_backbone(pretrained, tmp_path):
    go(tmp_path / "rank", f"init_from={pretrained}@80", "sharing.rank=2")
    equal(banks(tmp_path / "rank")["net"], banks(pretrained, 80)["net"])
    assert banks(tmp_path / "rank")["adapters"]["linear_1"]["a"].shape[-1] == 2


@pytest.mark.full
def test_another_seed_plays_otherwise(pretrained, tmp_path):
    go(tmp_path / "seed", f"init_from={pretrained}@80", "seed=5")
    found = lorasa_jax.load(tmp_path / "seed", seed=5).banks
    equal(found["net"], banks(pretrained)["net"])
    with pytest.raises(AssertionError):
        equal(found["adapters"], banks(pretrained)["adapters"])


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["env=synchronisation_2"], "another environment"),
        (["network.hidden=16"], "another network"),
        (["network.kind=gru"], "another network"),
        (["algo.num_envs=2", "total_steps=160"], "another num_envs"),
        (["num_seeds=2"], "another number of seeds"),
        (["critic_sharing=nps"], "another way of pretraining"),
    ],
)
def test_a_run_that_does_not_match_is_refused(pretrained, tmp_path, overrides, told):
    out = tmp_path / "run"
    with pytest.raises(ConfigError) as refusal:
        go(out, f"init_from={pretrained}@80", *overrides)
    message = str(refusal.value)
    assert told in message and message.endswith(".") and "\n" not in message
    assert not out.exists()


@pytest.mark.full
def test_other_checkpoints_are_refused(pretrained, tmp_path):
    for start, told in (
        (f"{pretrained}@160", "below total_steps"),
        (f"{pretrained}@40", "has no checkpoint at step 40; those it has are at 80, 160"),
        (f"{tmp_path}@80", "holds no run"),
    ):
        with pytest.raises(ConfigError, match=told):
            go(tmp_path / "run", f"init_from={start}")
    with pytest.raises(ConfigError, match="after the switch"):
        go(tmp_path / "run", f"init_from={pretrained}@160", "total_steps=240")


@pytest.mark.full
def test_a_rule_decides_the_switch_and_metrics_record_it(tmp_path):
    """The first evaluation, before any training, already reaches the threshold."""
    out = tmp_path / "rule"
    go(out, "switch_when=threshold", "switch_threshold=-1", "total_steps=240")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    phases = {row["env_steps"]: row["phase"] for row in rows}
    assert phases[0] == "pretrain" and phases[240] == "finetune"
    assert sum(phase == "pretrain" for phase in phases.values()) <= 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["switched_at"] == [step for step in phases if phases[step] == "pretrain"][-1]
