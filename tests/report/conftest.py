"""Tiny runs, trained and told once for all tests of reports."""

import pytest

from lorasa_jax import config, run
from lorasa_jax.report import page, story

TINY = [
    "algo.num_envs=2", "algo.rollout_length=10", "algo.chunk_length=5", "algo.epochs=1",
    "network.kind=ff", "network.hidden=8", "total_steps=60", "eval_every=1", "eval_episodes=2",
]  # fmt: skip
RUNS = {
    "ant": ["env=ant_4x2", "env.engine=native", "sharing=ps_lora", "switch_at=20"],
    "battle": [
        "env=smax_3m", "env.max_steps=12", "sharing=ps_lora", "switch_at=40", "num_seeds=2",
        "network.kind=gru",
    ],
    "shared": ["env=specialisation_2", "sharing=ps", "num_seeds=3", "seed=4"],
}  # fmt: skip


@pytest.fixture(scope="session")
def train():
    """train(name, out, *overrides): trains a tiny run in a folder, or finds it finished there."""

    def train(name, out, *overrides):
        run.execute(config.load([*TINY, *RUNS[name], *overrides, f"out={out}"]))
        return out

    return train


class Made(dict):
    """What is made of each of RUNS, when it is first asked for."""

    def __init__(self, make):
        self.make = make

    def __missing__(self, name):
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory):
    """{name: the folder of a run}."""
    folder = tmp_path_factory.mktemp("runs")
    return Made(lambda name: train(name, folder / name))


@pytest.fixture(scope="module")
def said():
    """What was told on the way."""
    return []


@pytest.fixture(scope="module")
def stories(trained, said):
    """{name: story}; the battle's is that of its second seed."""
    policies = {"ant": None, "battle": 1, "shared": None}
    return Made(lambda name: story.tell(trained[name], name, policies[name], said.append))


@pytest.fixture(scope="module")
def pages(stories):
    """{name: the page of one run}."""
    return Made(lambda name: page.page([stories[name]]))
