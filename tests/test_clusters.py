"""SePS in a run: groups found or given, written down, and carried over the switch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import envs, run
from lorasa_jax.envs import games
from lorasa_jax.envs.types import Box
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import clusters

TINY = [
    "env=two_kinds", "algo.num_envs=4", "algo.rollout_length=10", "algo.epochs=1",
    "network.hidden=8", "network.kind=ff", "total_steps=160", "eval_every=2", "eval_episodes=2",
]  # fmt: skip


def two_kinds():
    """Four agents move a point each; agents 1 and 3 are wired the other way round."""
    way = jnp.array([1.0, -1.0, 1.0, -1.0])

    def play(key, memory, steps, actions):
        place = memory + way * (1.0 + actions[:, 0])
        return place, -jnp.abs(place).mean() / 10

    return games.Game(
        4, 1, Box(1), 10,
        begin=lambda key: jax.random.normal(key, (4,)),
        observe=lambda memory, steps: memory[:, None],
        play=play, optimum=0.0, random=-0.5,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def known_groups(monkeypatch):
    monkeypatch.setitem(games._GAMES, "two_kinds", two_kinds)


def load(*overrides):
    return configuration.load([*TINY, *overrides])


@pytest.mark.full
def test_planted_groups_are_found_and_found_again():
    config = load("sharing=seps", "algo.num_envs=25", "algo.rollout_length=160", "total_steps=8000")
    assert clusters.find(config) == (0, 1, 0, 1)
    assert clusters.find(config) == (0, 1, 0, 1)


@pytest.mark.full
def test_the_rewards_target_is_an_option():
    """Everyone's reward is the same and tells nobody apart; groups are found all the same."""
    config = load("sharing=seps", "sharing.grouping=reward", "algo.num_envs=25",
                  "algo.rollout_length=160", "total_steps=8000")  # fmt: skip
    found = clusters.find(config)
    assert len(found) == 4 and found[0] == 0 and 2 <= len(set(found)) <= 3
    assert found == clusters.find(config)


def test_given_groups_are_taken():
    assert clusters.find(load("sharing=seps", "sharing.clusters=[3,3,1,3]")) == (0, 0, 1, 0)


@pytest.mark.long
@pytest.mark.full
def test_groups_are_written_printed_and_carried_over_the_switch(tmp_path, capsys):
    out = tmp_path / "run"
    given = "sharing.clusters=[0,1,1,0]"
    run.execute(load("sharing=seps_lora", given, "switch_at=80", f"out={out}"))
    assert "clusters of agents: [0, 1, 1, 0]" in capsys.readouterr().out
    assert json.loads((out / "clusters.json").read_text()) == {"clusters": [0, 1, 1, 0]}
    before, after = lorasa_jax.load(out, 80), lorasa_jax.load(out)
    assert before.team.actor.scheme.banks["net"].index == (0, 1, 1, 0)
    assert after.team.actor.scheme.banks["net"].index == (0, 1, 1, 0)
    assert after.phase == "finetune" and before.phase == "pretrain"
    jax.tree.map(np.testing.assert_array_equal, before.banks["net"], after.banks["net"])

    # Another fine-tuning of the same pretraining has its groups without being told.
    other = tmp_path / "other"
    run.execute(load("sharing=seps_lora", f"init_from={out}@80", "sharing.rank=2", f"out={other}"))
    assert json.loads((other / "clusters.json").read_text()) == {"clusters": [0, 1, 1, 0]}
    rows = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in rows] == [80, 160]
    with pytest.raises(ConfigError, match="pretrained with other clusters"):
        run.execute(load("sharing=seps_lora", f"init_from={out}@80", "out=" + str(tmp_path / "x"),
                         "sharing.clusters=[0,0,1,1]"))  # fmt: skip


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["sharing.clusters=[0,1,0]"], "the number of a group for each of the 4 agents"),
        (["sharing.clusters=[0,1,0,1,1]"], "for each of the 4 agents"),
        (["sharing.clusters=[0,1,0,-1]"], "for each of the 4 agents"),
        (["sharing.clusters=[0,1,0,two]"], "for each of the 4 agents"),
        (["sharing.clusters=3"], "must be a list"),
    ],
)
def test_groups_that_do_not_cover_all_agents_are_refused(tmp_path, overrides, told):
    with pytest.raises(ConfigError) as refusal:
        run.execute(load("sharing=seps", *overrides, f"out={tmp_path / 'run'}"))
    message = str(refusal.value)
    assert told in message and ". " not in message
    assert not (tmp_path / "run").exists()


def test_two_agents_cannot_be_clustered(tmp_path):
    config = configuration.load(["env=specialisation_2", "sharing=seps", f"out={tmp_path / 'run'}"])
    assert envs.make("specialisation_2").num_agents == 2
    with pytest.raises(ConfigError, match="finds groups among 3 agents or more"):
        run.execute(config)
