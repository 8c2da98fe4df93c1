"""Every environment by name trains under the default way of sharing."""

import json

import pytest

from lorasa_jax import config as configuration
from lorasa_jax import envs, run

SMALL = [
    "network.kind=ff", "network.hidden=4", "network.depth=1", "algo.num_envs=2",
    "algo.rollout_length=4", "algo.chunk_length=2", "algo.epochs=1", "eval_episodes=1",
    "eval_every=1", "total_steps=16", "switch_at=8",
]  # fmt: skip
# Most of these environments are upstream's, whose code warns of itself.
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.filterwarnings("ignore:Brax System:UserWarning"),
    pytest.mark.filterwarnings("ignore:max_dist_to_goal:UserWarning"),
    pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning"),
]


def names():
    """All; every one compiles for up to a minute, so that most are left to `pytest -m full`."""
    quick = {"halfcheetah_2x3", "jaxmarl_MPE_simple_spread_v3", "smac_2s3z"}
    for name in envs.names():
        yield pytest.param(name, marks=() if name in quick else pytest.mark.long)


@pytest.mark.full
@pytest.mark.parametrize("name", names())
def test_one_update(name, tmp_path):
    """The run is stopped after its first update; that adapters would follow is checked before."""
    config = configuration.load([f"env={name}", *SMALL, f"out={tmp_path / 'run'}"])
    metrics = tmp_path / "run" / "metrics.jsonl"

    def updated():
        return len(metrics.read_text().splitlines()) == 2

    assert run.execute(config, updated) is None
    before, after = map(json.loads, metrics.read_text().splitlines())
    assert (before["env_steps"], after["env_steps"]) == (0, 8)
    assert after["policy_loss"] is not None and after["value_loss"] is not None
    assert (tmp_path / "run" / "checkpoints" / "1").is_dir()
