import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import run
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

GAME = [
    "env=specialisation_2", "algo.num_envs=4", "algo.rollout_length=10", "algo.chunk_length=5",
    "network.hidden=8",
    "total_steps=400", "switch_at=200", "eval_every=3", "updates_per_call=2",
    "checkpoint_every=4", "eval_episodes=2",
]  # fmt: skip


@pytest.mark.full
def test_every_phase_compiles_once_however_the_run_is_cut(tmp_path, caplog):
    """10 updates in chunks of 1 and 2, two phases, evaluations at six moments."""
    config = configuration.load([*GAME, f"out={tmp_path / 'run'}"])
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run.execute(config)
    compiled = [
        record.getMessage().split("jit(")[1].split(")")[0]
        for record in caplog.records
        if "Finished XLA compilation of jit(" in record.getMessage()
    ]
    assert compiled.count("run") == 2
    assert compiled.count("play") == 2


@pytest.fixture(scope="module")
def switched():
    config = configuration.load(GAME)
    teams = build_teams(config)
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    phase = compile_phase(config, 0, teams[0], progress)
    before = phase.advance(progress, jnp.int32(3))
    after = jax.jit(lambda p: phases.switch(config, teams, 1, p))(before)
    return config, teams, before, after


def test_nothing_is_lost_at_the_switch(switched):
    _, _, before, after = switched
    for part in ("critic", "value_norm", "runner"):
        jax.tree.map(
            np.testing.assert_array_equal,
            getattr(before.state, part),
            getattr(after.state, part),
        )
    np.testing.assert_array_equal(
        jax.random.key_data(before.state.key), jax.random.key_data(after.state.key)
    )
    assert int(after.update[0]) == int(before.update[0]) == 3
    jax.tree.map(
        np.testing.assert_array_equal,
        before.state.actor.banks["net"],
        after.state.actor.banks["net"],
    )


def test_agents_act_the_same_right_after_the_switch(switched):
    _, teams, before, after = switched
    one = [jax.tree.map(lambda x: x[0], progress.state.actor.banks) for progress in (before, after)]
    weights, axes = teams[0].actor.scheme.weights(one[0])
    merged, merged_axes = teams[1].actor.scheme.weights(one[1])
    assert set(jax.tree.leaves(axes)) == set()
    assert set(jax.tree.leaves(merged_axes)) == {0}
    for agent in range(2):
        own = jax.tree.map(
            lambda x, axis, i=agent: x if axis is None else x[i], merged, merged_axes,
            is_leaf=lambda x: x is None,
        )  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, weights, own)


@pytest.mark.long
@pytest.mark.full
def test_a_vmapped_seed_follows_the_single_one(switched):
    """Other kernels, so other last bits; the same run for all that matters."""
    config = configuration.load([*GAME, "num_seeds=2"])
    team = build_teams(config)[0]
    progress = jax.jit(lambda: phases.begin(config, team))()
    phase = compile_phase(config, 0, team, progress)
    both = phase.advance(progress, jnp.int32(3))
    single = switched[2]
    for name in ("actor", "critic"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x[0], y[0], atol=2e-4),
            getattr(both.state, name).banks,
            getattr(single.state, name).banks,
        )
    kernel = both.state.actor.banks["net"]["linear_2"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1


@pytest.mark.full
def test_play_does_not_depend_on_how_training_was_cut(switched):
    config, teams, _, _ = switched
    ends = []
    for cuts in ((3,), (1, 2), (1, 1, 1)):
        progress = jax.jit(lambda: phases.begin(config, teams[0]))()
        phase = compile_phase(config, 0, teams[0], progress)
        for n in cuts:
            progress = phase.advance(progress, jnp.int32(n))
        ends.append(progress.state.actor.banks)
    jax.tree.map(np.testing.assert_array_equal, ends[0], ends[1])
    jax.tree.map(np.testing.assert_array_equal, ends[0], ends[2])


@pytest.mark.full
def test_the_switch_rule_is_kept_by_the_checkpoint_not_read_from_the_log(tmp_path, capsys):
    """The rule asks for three evaluations; the run is stopped after two and its log removed."""
    rule = ["switch_when=plateau", "switch_patience=2", "switch_margin=1e9", "eval_every=1"]
    config = configuration.load([*GAME, *rule, f"out={tmp_path / 'run'}"])
    evaluations = iter(range(9))
    assert run.execute(config, lambda: next(evaluations) == 1) is None
    (tmp_path / "run" / "metrics.jsonl").unlink()
    run.execute(config)
    assert "step 80: finetune begins" in capsys.readouterr().out
