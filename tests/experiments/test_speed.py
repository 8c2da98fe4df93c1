import jax
import jax.numpy as jnp
import pytest

from experiments import compiling, keep, speed
from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.training.teams import build_teams


def test_operations_are_counted_by_hand_on_ant():
    team = build_teams(configuration.load(["env=ant_4x2", "network.log_std=vector"]))[0]
    middle = 3 * 64 * 64 + 2 * 64 * 192
    actor = 35 * 64 * (2 + 8 * 4) + (middle + 64 * 2) * (2 + 8 * 6)
    critic = 115 * 64 * (2 + 8 * 4) + (middle + 64) * (2 + 8 * 6)
    assert speed.operations_per_step(team, epochs=8) == 4 * (actor + critic)


def test_tables_hold_what_was_measured():
    row = {"compile": 1.0, "update": 0.8, "play": 0.3, "learning_and_inference": 0.5,
           "steps_per_second": 5000.0, "limit": 9000.0, "share_of_limit": 5 / 9,
           "share_of_floor": 0.7}  # fmt: skip
    result = {
        "command": "python -m experiments.speed", "device": "cpu", "matrix_gflops": 400.0,
        "product_seconds": {"epoch": 0.05, "play": 0.02}, "peak_memory_gib": 1.0,
        "engine": {"25": {"raw": 13000.0, "jitted": 12000.0}},
        "schemes": {"ps": row},
    }  # fmt: skip
    text = speed.markdown(result)
    assert "| 25 | 13,000 | 12,000 | 92% |" in text
    assert "| ps | 1.0 | 0.800 | 0.300 | 0.500 | 5,000 | 9,000 | 56% | 70% |" in text
    assert "own take 0.050 s an epoch and 0.020 s a rollout" in text


@pytest.mark.full
def test_products_alone_take_less_than_the_update_that_holds_them():
    words = ["env=probe_memory", "algo.num_envs=64", "algo.rollout_length=40", "total_steps=25600"]
    team = build_teams(configuration.load(words))[0]
    products, row = speed.product_seconds(team, 40, 64), speed.scheme_rows(words, "ps")
    assert 0 < row["epochs"] * products["epoch"] + products["play"] < row["update"]


def test_speed_refuses_what_has_no_engine():
    with pytest.raises(ConfigError, match="no C engine"):
        speed.main(["env=probe_memory"])


@pytest.mark.full
def test_speed_measures_a_small_engine():
    row = speed.engine_rows("ant_4x2", "native", 2, 5)
    assert row["raw"] > 0 and row["jitted"] > 0


def test_what_is_written_out_costs_more_instructions_than_a_loop():
    def repeated(unroll):
        body = lambda i, x: jnp.sin(x + i) @ x  # noqa: E731
        return lambda x: jax.lax.fori_loop(0, 64, body, x, unroll=unroll)

    loop, written = (compiling.compiled(repeated(u), jnp.ones((4, 4))) for u in (1, 16))
    assert 0 < loop["instructions"] < written["instructions"]
    assert 0 < loop["operations"] <= written["operations"]
    least = compiling.least([loop, written])
    assert least["instructions"] == loop["instructions"]
    text = compiling.markdown(
        {"command": "x", "device": "cpu", "versions": {"jax": "1", "jaxmarl": "2"}, "load": 1.0,
         "rows": {"smax_3m": {"step": {"trace": 0.5, "compile": 2.0, "operations": 1000,
                                       "operations for CUDA": 2000, "instructions": 3000}}}}
    )  # fmt: skip
    assert "| smax_3m | step | 0.5 | 2.0 | 1,000 | 2,000 | 3,000 |" in text


@pytest.mark.full
@pytest.mark.parametrize("words", [["compiling=smax_4"], ["compiling=smax_3m", "env=smax_3m"]])
def test_compiling_refuses_unknown_and_second_environments(words):
    with pytest.raises(ConfigError, match=r"compiling="):
        speed.main(words)


def test_keep_refuses_a_run_that_is_not_finished(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        keep.keep(tmp_path, "x")
