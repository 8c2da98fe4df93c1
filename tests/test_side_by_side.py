"""Numbers as arguments of one compiled program, and batches that are trained as one."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import loop, multirun, side_by_side
from lorasa_jax.training.numbers import numbers_of, with_numbers

TINY = [
    "env=specialisation_2", "network.kind=ff", "network.hidden=8", "network.depth=1",
    "algo.num_envs=4",
    "algo.rollout_length=10", "total_steps=800", "eval_every=5", "checkpoint_every=5",
    "eval_episodes=2",
]  # fmt: skip


def load(*overrides):
    return configuration.load([*TINY, *overrides])


def batch(folder, monkeypatch, *overrides):
    """The batch's exit code; its runs lie in folder/runs."""
    monkeypatch.chdir(folder)
    return multirun.batch([*TINY, "hydra/launcher=vmap", *overrides])


def metrics(folder):
    """{seed, clip: rows without speeds} of the runs in a folder."""
    found = {}
    for path in Path(folder, "runs").glob("*/metrics.jsonl"):
        config = (path.parent / "config.yaml").read_text()
        clip = next(line for line in config.splitlines() if line.strip().startswith("clip:"))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows]
        found[rows[0]["seed"], float(clip.partition(":")[2])] = rows
    return found


def alone(*overrides):
    """A run by itself."""
    keys = dict(override.split("=") for override in (*TINY, "sharing=ps_lora", *overrides))
    return lorasa_jax.train(out=None, **keys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A batch of two seeds and two clips, trained as one."""
    folder = tmp_path_factory.mktemp("batch")
    with pytest.MonkeyPatch.context() as patch:
        assert batch(folder, patch, "sharing=ps_lora", "seed=0,1", "algo.clip=0.1,0.2") == 0
    return folder


def test_numbers_are_those_that_are_declared_so_and_neither_null_nor_zero():
    found = numbers_of(load("sharing=ps_lora", "algo.entropy_coef=0", "algo.target_kl=0.02"))
    assert {"algo.clip", "algo.target_kl", "pretrain.clip", "sharing.alpha"} <= set(found)
    assert "algo.entropy_coef" not in found and "algo.epochs" not in found
    assert found["updates"] == 20


def test_numbers_of_a_configuration_are_replaced_and_unknown_ones_refused():
    config = with_numbers(load("sharing=ps_lora"), {"algo.clip": 0.3, "sharing.alpha": 2.0})
    assert config.algo.clip == 0.3 and config.sharing["alpha"] == 2.0
    with pytest.raises(ConfigError, match="algo\\.clip"):
        with_numbers(config, {"algo.clib": 0.3})


def test_runs_that_differ_in_shapes_are_other_programs():
    configs = [
        load(f"sharing={x}", f"algo.clip={clip}") for x in ("ps", "nps") for clip in (0.1, 0.2)
    ]
    assert side_by_side.alike(configs) == [[0, 1], [2, 3]]
    configs = [load("sharing=ps", f"algo.target_kl={x}") for x in ("null", 0.1, 0.2)]
    assert side_by_side.alike(configs) == [[0], [1, 2]]
    assert side_by_side.alike([load("sharing=seps", f"seed={x}") for x in (0, 1)]) == [[0], [1]]


def test_programs_are_split_where_memory_is_short():
    configs = [load("sharing=ps", f"seed={5 * x}", "num_seeds=2") for x in range(4)]
    assert side_by_side.programs(configs, max_lanes=4) == [[0, 1], [2, 3]]
    assert side_by_side.programs(configs, max_lanes=1) == [[0], [1], [2], [3]]
    assert side_by_side.programs(configs) == [[0, 1, 2, 3]]
    assert 1e4 < side_by_side.lane_bytes(configs[0]) < 1e8


@pytest.mark.full
def test_a_batch_of_seeds_is_the_run_of_these_seeds(trained, tmp_path, monkeypatch):
    """Bit for bit: four lanes are those of `num_seeds=4` of equal numbers."""
    assert batch(tmp_path, monkeypatch, "sharing=ps_lora", "seed=0,1,2,3", "algo.clip=0.1") == 0
    together = metrics(tmp_path)
    run = alone("algo.clip=0.1", "num_seeds=4")
    rows = run.metrics.drop(columns="steps_per_second")
    for seed in range(4):
        records = rows[rows.seed == seed].to_dict("records")
        for one, other in zip(records, together[seed, 0.1], strict=True):
            for name, value in other.items():
                assert value is None or one[name] == value, (seed, one["env_steps"], name)
    for seed in (0, 1):  # other numbers beside it change nothing
        assert metrics(trained)[seed, 0.1] == together[seed, 0.1]


@pytest.mark.long
@pytest.mark.full
def test_a_batch_goes_on_where_it_stopped(trained, tmp_path, monkeypatch):
    """One member is stopped at its seventh advance, all others at their own next."""
    words = "sharing=ps_lora", "seed=0,1", "algo.clip=0.1,0.2"
    advance, calls = loop.Run._advance, []

    def stopping(self, phase, progress):
        calls.append(0)
        if len(calls) == 18:
            self.stop.signal = "SIGTERM"
        return advance(self, phase, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "_advance", stopping)
        assert batch(tmp_path, monkeypatch, *words) == 0
    assert metrics(tmp_path) != metrics(trained)
    assert batch(tmp_path, monkeypatch, *words) == 0
    assert metrics(tmp_path) == metrics(trained)


@pytest.mark.full
def test_a_member_that_must_stop_leaves_the_others_alone(trained, tmp_path, monkeypatch, capsys):
    check = loop.Run._check_finite

    def failing(self, progress):
        if self.config.seed == 1 and self.config.algo.clip == 0.2:
            raise loop.TrainingError("stopped for this test")
        check(self, progress)

    monkeypatch.setattr(loop.Run, "_check_finite", failing)
    assert batch(tmp_path, monkeypatch, "sharing=ps_lora", "seed=0,1", "algo.clip=0.1,0.2") == 1
    assert "stopped for this test" in capsys.readouterr().err
    left = {name: rows for name, rows in metrics(trained).items() if name != (1, 0.2)}
    assert {name: rows for name, rows in metrics(tmp_path).items() if name in left} == left


@pytest.mark.full
def test_a_number_that_is_an_argument_trains_like_a_constant(trained):
    """Within rounding, which another number of lanes may change: one lane and four."""
    run = alone("algo.clip=0.1")
    rows = metrics(trained)[0, 0.1]
    np.testing.assert_allclose(
        run.metrics.value_loss[1:3], [row["value_loss"] for row in rows[1:3]], rtol=1e-3
    )


def test_a_launcher_of_one_key_refuses_others(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="max_lanes"):
        batch(tmp_path, monkeypatch, "sharing=ps,nps", "hydra.launcher.n_jobs=2")
    with pytest.raises(ConfigError, match="whole number"):
        batch(tmp_path, monkeypatch, "sharing=ps,nps", "hydra.launcher.max_lanes=x")


@pytest.mark.full
def test_make_train_is_the_run_of_the_command_line(trained):
    config = load("sharing=ps_lora")
    train = jax.jit(jax.vmap(lorasa_jax.make_train(config)))
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    state, updates, results, reports = train(
        keys, dict.fromkeys(("algo.clip", "pretrain.clip"), jnp.array([0.1, 0.2]))
    )
    assert updates[0].tolist() == [0, 5, 7, 10, 15, 20]
    for lane, name in enumerate(((0, 0.1), (1, 0.2))):
        rows = metrics(trained)[name]
        assert results.returns[lane].mean(-1) == pytest.approx(
            [row["eval_return"] for row in rows], rel=1e-3, abs=1e-3
        )
        losses = [row["value_loss"] for row in rows]
        assert reports["value_loss"][lane, 1:] == pytest.approx(losses[1:], rel=1e-2, abs=1e-4)
    assert state.actor.banks["adapters"] is not None


def test_make_train_refuses_what_is_decided_outside_compiled_code():
    for words in (
        ["sharing=ps_lora", "switch_when=plateau"], ["sharing=seps"], ["sharing=ps", "devices=2"],
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="make_train"):
            lorasa_jax.make_train(load(*words))
    with pytest.raises(ConfigError, match="algo\\.clip"):
        train = lorasa_jax.make_train(load("sharing=ps"))
        jax.eval_shape(lambda key: train(key, {"algo.clib": 0.1}), jax.random.key(0))
    assert dataclasses.is_dataclass(lorasa_jax.configure(env="ant_4x2", sharing="ps"))
