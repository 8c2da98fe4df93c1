"""Schemes that remember: what they do in a run, resumed bit for bit and in vmapped seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import evaluate, run
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import phases, plan, runs
from lorasa_jax.training.checkpoint import Checkpoints
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

GAME = [
    "env=specialisation_2", "algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=4",
    "algo.epochs=1", "network.hidden=8", "network.kind=ff", "network.depth=1", "total_steps=64",
    "eval_every=2", "eval_episodes=2", "checkpoint_every=2",
]  # fmt: skip
LORA = ["sharing=ps_lora", "switch_at=16", "sharing.rank=4"]
# What it is, its words, what it reports, and the memory that moves.
CASES = {
    "kaleidoscope": (
        ["sharing=kaleidoscope", "sharing.reset_every=2", "sharing.diversity=1"],
        {"diversity_loss", "diversity_weight", "sparsity", "redrawn"}, "losses",
    ),
    "adalora": (
        [*LORA, "sharing.rank_schedule=adalora", "sharing.rank_target=1"],
        {"orthogonality", "mean_rank"}, "importance",
    ),
    "dylora": ([*LORA, "sharing.rank_schedule=dylora"], {"rank"}, "rank"),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.sample(1, rest="long")
@pytest.mark.parametrize("name", CASES)
def test_two_seeds_resume_bit_for_bit_and_report_what_their_scheme_does(name, tmp_path):
    words, reported, memory = CASES[name]
    config = configuration.load([*GAME, *words, "num_seeds=2"])
    teams = build_teams(config)
    last = len(teams) - 1
    begin = jax.jit(lambda: phases.until(config, teams, last))
    first = begin()
    phase = compile_phase(config, last, teams[last], first)
    whole = phase.advance(begin(), jnp.int32(5))
    half = phase.advance(begin(), jnp.int32(2))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(2, half, {})
    half = checkpoints.restore(2, jax.eval_shape(begin), phases.LATER)
    checkpoints.close()
    resumed = phase.advance(half, jnp.int32(3))
    for one, other in zip(*map(jax.tree.leaves, (whole, resumed)), strict=True):
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = map(jax.random.key_data, (one, other))
        np.testing.assert_array_equal(one, other)
    assert reported <= set(whole.sums)
    assert all(np.isfinite(whole.sums[name]).all() for name in reported)
    banks = whole.state.actor.banks
    for before, after in zip(
        *map(jax.tree.leaves, (first.state.actor.banks[memory], banks[memory])), strict=True
    ):
        assert not np.array_equal(before, after)
        assert np.array_equal(after[0], after[1]) <= (name == "dylora")
    served, _ = phases.finished(whole, teams[last])
    assert name != "dylora" or (np.asarray(served["rank"]["k"]) == 4).all()


@pytest.mark.full
@pytest.mark.parametrize("name", ["adalora", "dylora"])
def test_adapters_that_rest_or_are_merged_have_a_sound_plan(name):
    words = [word for word in CASES[name][0] if not word.startswith("switch_at")]
    for order in ("ps:16,ps_lora:16,ps:16,ps_lora", "ps:16,ps_lora:16,merge,ps_lora"):
        config = configuration.load([*GAME, *words, f"phases=[{order}]"])
        teams = build_teams(config)
        plan.check(config, teams)
        acts = [team.actor.scheme.after_update is not None for team in teams]
        assert acts == [False, True, *([False, True] if ",ps:" in order else [True])]


@pytest.mark.full
def test_ranks_are_in_the_summary_and_any_rank_is_served(tmp_path):
    words, _, _ = CASES["adalora"]
    out = tmp_path / "run"
    run.execute(configuration.load([*GAME, *words, "num_seeds=2", f"out={out}"]))
    summary = runs.summary(out)
    assert not any("importance" in bank for bank in summary["parameters"])
    for ranks in summary["ranks_per_seed"]:
        assert set(ranks) == {"linear_1", "linear_6", "linear_7"}
        assert sum(sum(agents) for agents in ranks.values()) == 6
    evaluate.main([f"out={out}", "rank=1", "episodes=2"])
    policy = runs.load(out).policy(0)
    served = policy.at_rank(1).banks
    for adapter in served["adapters"].values():
        assert (np.count_nonzero(adapter["singular"], axis=-1) <= 1).all()


def test_a_policy_without_ranks_has_none_to_serve(tmp_path):
    config = configuration.load([*GAME, "sharing=ps"])
    (team,) = build_teams(config)
    state = jax.eval_shape(lambda: phases.start(jnp.uint32(0), team, config.algo))
    banks = jax.tree.map(lambda x: jnp.zeros(x.shape), state.actor.banks)
    policy = runs.policy_of(config, team, 0, banks, seed=0, step=0, out="RUN")
    with pytest.raises(ConfigError, match="rank=2 needs a run's adapters that serve at any rank"):
        policy.at_rank(2)
