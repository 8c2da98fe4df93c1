"""`lorasa_jax.train`: the command line's keys with Python's values."""

import numpy as np
import pytest

import lorasa_jax
from lorasa_jax.errors import ConfigError
from lorasa_jax.training.api import spelled

SMALL = {
    "env": "probe_observation", "sharing": "ps", "network.hidden": 4, "network.depth": 1,
    "algo.num_envs": 2,
    "algo.rollout_length": 10, "algo.epochs": 1, "eval_every": 1, "eval_episodes": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("api") / "run"
    return lorasa_jax.train(out=out, total_steps=40, num_seeds=2, seed=3, **SMALL)


def test_a_run_has_metrics_summary_and_policies(run):
    assert list(run.metrics["env_steps"]) == [0, 0, 20, 20, 40, 40]
    assert set(run.metrics["seed"]) == {3, 4}
    assert run.summary["env_steps"] == 40 and (run.out / "summary.json").exists()
    assert run.policy(4).seed == 4 and run.policy().seed == 3
    loaded = lorasa_jax.load(run.out, seed=4).banks["net"]["linear_1"]["kernel"]
    np.testing.assert_array_equal(run.params(4)["net"]["linear_1"]["kernel"], loaded)


@pytest.mark.full
def test_nothing_is_kept_where_none_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = lorasa_jax.train(out=None, total_steps=20, **SMALL)
    assert run.out is None and len(run.metrics) == 2
    policy = run.policy()
    _, action = policy.act(
        np.zeros((1, policy.team.env.observation_size)), policy.initial_carry(), False
    )
    assert action.shape == (1,)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_callback_sees_every_evaluation_and_may_stop(tmp_path):
    seen = []

    def watch(run):
        seen.append(len(run.metrics))
        return len(run.metrics) == 2

    run = lorasa_jax.train(out=tmp_path / "run", total_steps=60, callbacks=[watch], **SMALL)
    assert seen == [2] and run.summary is None
    again = lorasa_jax.train(out=tmp_path / "run", total_steps=60, **SMALL)
    assert again.summary["env_steps"] == 60 and len(again.metrics) == 4


def test_refusals_are_config_errors():
    with pytest.raises(ConfigError, match="did you mean"):
        lorasa_jax.train(envv="ant_4x2")
    with pytest.raises(ConfigError, match="above 0"):
        lorasa_jax.train(**{"algo.clip": 0})


@pytest.mark.parametrize(
    "value, text",
    [(None, "null"), (True, "true"), (1e-3, "0.001"), (4e6, "4000000.0"), ("ant_4x2", "ant_4x2"),
     ([1, "a"], "[1,a]"), ({"gru_*": 4}, "{'gru_*':4}"), ("a b's", "'a b\\'s'")],
)  # fmt: skip
def test_values_are_spelled_for_the_command_line(value, text):
    assert spelled(value) == text
