"""Environments split over devices; in a process of its own, for JAX counts devices only once."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import devices

SCRIPT = Path(__file__).parent / "split_learning.py"
ALGOS = ("mappo", "a2po", "happo")


@pytest.fixture(scope="module")
def learned():
    command = [sys.executable, str(SCRIPT), *ALGOS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return {row["algo"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("algo", ALGOS)
def test_two_devices_learn_from_their_halves_what_one_learns_from_the_whole(learned, algo):
    row = learned[algo]
    assert row["devices"] == 2
    assert row["moved"] > 1e-3
    assert row["difference"] < 1e-5 * max(1.0, row["moved"])
    one, two = row["told"]
    assert two == pytest.approx(one, rel=1e-4, abs=1e-5)


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("algo", ALGOS)
def test_parameters_are_the_same_on_both_devices(learned, algo):
    assert learned[algo]["between"] == 0.0


@pytest.fixture(scope="module")
def split():
    command = [sys.executable, str(SCRIPT.with_name("split_seeds.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_a_seed_with_a_device_of_its_own_learns_what_it_learns_alone(split):
    assert split["moved"] > 1e-3
    assert split["seeds_only"] < 1e-6  # another program: the last bits


@pytest.mark.long
def test_eight_devices_split_four_seeds_and_then_their_environments(split):
    """Each seed is then, bit for bit, what it is alone on two devices."""
    assert split["shards"] == [[1, 2], 8]  # seeds and environments of a device
    assert split["between"] == 0.0
    assert split["seeds_and_environments"] == 0.0


def test_seeds_are_split_before_environments():
    pairs = {(1, 5): (1, 1), (2, 4): (2, 1), (8, 4): (4, 2), (6, 4): (2, 3), (3, 1): (1, 3)}
    for (count, num_seeds), parts in pairs.items():
        assert devices.split(count, num_seeds) == parts


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["devices=0"], "at least 1"),
        (["devices=2", "algo.num_envs=25"], "whose number must divide algo.num_envs=25"),
        (["devices=4", "num_seeds=2", "algo.num_envs=25"], "every seed 2 devices"),
        (["devices=2", "algo.num_envs=2", "algo.minibatches=32"], "must divide the 16 sequences"),
    ],
)
def test_what_does_not_divide_is_refused(overrides, told):
    small = ["algo.rollout_length=160", "algo.chunk_length=10", "total_steps=400000"]
    with pytest.raises(ConfigError, match=told):
        configuration.load(["env=ant_4x2", *small, *overrides])


def test_more_devices_than_there_are_is_refused():
    jax.devices()  # from now on their number is fixed
    with pytest.raises(ConfigError, match="is more than the"):
        devices.prepare(4096)
