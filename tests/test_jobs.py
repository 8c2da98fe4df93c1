"""Keys of a batch that some of its jobs have no use for."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lorasa_jax.errors import ConfigError
from lorasa_jax.training import jobs, multirun

TINY = ["env=specialisation_2", "total_steps=4000", "algo.num_envs=4", "algo.rollout_length=10"]


def split(*overrides):
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return jobs.fitting(jobs.basic_sweeper.BasicSweeper.split_arguments(parsed, None)[0])


def test_a_step_of_the_switch_is_left_out_where_there_is_none():
    members, notes = split("sharing=ps,ps_lora", "switch_at=2000", "pretrain.clip=0.1")
    assert members == [
        ["sharing=ps"], ["sharing=ps_lora", "switch_at=2000", "pretrain.clip=0.1"],
    ]  # fmt: skip
    assert notes[0] == "switch_at means nothing to sharing=ps; left out there"


def test_jobs_that_become_the_same_are_run_once():
    members, notes = split("sharing=nps,ps_lora", "sharing.rank=4,8")
    assert members == [
        ["sharing=nps"],
        ["sharing=ps_lora", "sharing.rank=4"],
        ["sharing=ps_lora", "sharing.rank=8"],
    ]
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("overrides", "left"),
    [
        (["algo=mappo,a2po", "algo.order=fixed"], ["algo=mappo"]),
        (["env=ant_4x2,smax_3m", "env.engine=mjx"], ["env=smax_3m"]),
    ],
)
def test_keys_of_algorithms_and_environments_too(overrides, left):
    members, _ = split(*overrides)
    assert left in members and len(members) == 2


def test_a_key_that_no_job_has_a_use_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split("sharing=ps,nps", "switch_at=2000")[1] == []
    with pytest.raises(ConfigError, match="switch_at"):
        multirun.batch([*TINY, "sharing=ps,nps", "switch_at=2000"])
    with pytest.raises(ConfigError, match="unknown key algo\\.ordre"):
        multirun.batch([*TINY, "algo=mappo,happo", "algo.ordre=fixed"])
