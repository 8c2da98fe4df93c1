"""What stops a trajectory's gradient steps, and what scales them, each with a known answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config
from lorasa_jax.envs.types import Box
from lorasa_jax.learn import a2po, mappo, ppo, ratios, returns, target_kl
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.sharing import nps, ps
from lorasa_jax.training import phases
from lorasa_jax.training.teams import build_teams

HP = a2po.A2po(
    num_envs=4, rollout_length=6, chunk_length=2, epochs=3, clip=0.2, gamma=0.9, gae_lambda=0.8,
    entropy_coef=0.01, order="fixed", loop="agent")  # fmt: skip
UPDATES = {"mappo": mappo.update, "a2po": a2po.update}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def changed(a, b):
    return any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def run(kls, target):
    """Steps that add 1 and report these KLs: (the sum, means of reports)."""

    def step(total, kl):
        return total + 1.0, {"approx_kl": kl, "loss": total}

    guarded = target_kl.guarded(step, target)
    carry, reports = jax.lax.scan(guarded, (jnp.zeros(()), jnp.zeros((), bool)), jnp.array(kls))
    return carry[0], target_kl.means(reports)


def test_the_first_step_beyond_the_target_and_all_later_ones_are_left_out():
    total, report = run([0.001, 0.01, 0.03, 0.001, 0.0], 0.02)
    assert total == 2.0 and report["gradient_steps"] == 2.0
    np.testing.assert_allclose(report["approx_kl"], np.mean([0.001, 0.01, 0.03]))
    np.testing.assert_allclose(report["loss"], np.mean([0.0, 1.0, 2.0]))


def test_without_a_target_all_steps_are_taken():
    total, report = run([0.001, 9.0, 0.03], None)
    assert total == 3.0 and set(report) == {"approx_kl", "loss"}


@pytest.fixture(scope="module")
def start(make_team, make_state, counter):
    def start(scheme):
        team = make_team(counter(action_space=Box(2)), scheme(2), ps(2))
        return team, make_state(team, 4)

    return start


@pytest.mark.full
@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "algo, form",
    [("mappo", {}), ("a2po", {}), ("a2po", {"loop": "epoch"})],
    ids=["mappo", "a2po by agent", "a2po by epoch"],
)
def test_a_tiny_target_leaves_one_epoch(algo, form, start):
    """The first pass starts from the policy that played, whose KL is zero; the second does not."""
    team, state = start(nps)
    results = []
    for more in ({"epochs": 1}, {"target_kl": 1e-5}):
        hp = HP.replace(**form, **more)
        results.append(jax.jit(lambda s, hp=hp: UPDATES[algo](s, team, hp))(state))
    (one, _, _), (stopped, report, _) = results
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, one.actor.banks, stopped.actor.banks)
    jax.tree.map(close, one.critic.banks, stopped.critic.banks)
    assert report["gradient_steps"] == (1.0 if algo == "mappo" else 2.0)  # one of each agent
    assert changed(one.actor.banks, state.actor.banks)


@pytest.mark.long
@pytest.mark.full
def test_a_target_that_is_never_reached_changes_nothing(start):
    team, state = start(nps)
    results = []
    for target in (None, 1e9):
        hp = HP.replace(target_kl=target)
        results.append(jax.jit(lambda s, hp=hp: mappo.update(s, team, hp))(state))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        *(after.actor.banks for after, *_ in results),
    )
    assert results[1][1]["gradient_steps"] == HP.epochs


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("algo", UPDATES)
def test_a_learning_rate_scaled_to_zero_moves_nothing(algo, start):
    team, state = start(ps)
    update = jax.jit(lambda s, scale: UPDATES[algo](s, team, HP.replace(lr_scale=scale)))
    still, half, whole = (update(state, jnp.float32(x))[0] for x in (0.0, 0.5, 1.0))
    assert_equal((still.actor.banks, still.critic.banks), (state.actor.banks, state.critic.banks))
    plain = jax.jit(lambda s: UPDATES[algo](s, team, HP))(state)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        whole.actor.banks, plain.actor.banks,
    )  # fmt: skip
    assert changed(half.actor.banks, whole.actor.banks)


def test_linear_decay_goes_from_one_to_zero_over_all_phases():
    words = ["env=specialisation_2", "total_steps=20000", "switch_at=8000"]
    scale = phases.lr_scale(config.load([*words, "algo.lr_decay=linear"]))
    np.testing.assert_allclose([float(scale(i)) for i in range(5)], [1, 0.75, 0.5, 0.25, 0])
    assert phases.lr_scale(config.load(words)) is None
    once = config.load(["env=specialisation_2", "sharing=ps", "total_steps=4000",
                        "algo.lr_decay=true"])  # fmt: skip
    assert float(phases.lr_scale(once)(0)) == 1.0


@pytest.mark.long
@pytest.mark.full
def test_the_last_update_of_a_decaying_run_changes_no_parameter():
    settings = config.load([
        "env=probe_action_continuous", "sharing=ps", "network.hidden=4", "algo.num_envs=2",
        "algo.rollout_length=4", "algo.chunk_length=2", "algo.epochs=1", "total_steps=24",
        "algo.lr_decay=linear",
    ])  # fmt: skip
    (team,) = build_teams(settings)
    hp, scale = settings.algo_of(-1), phases.lr_scale(settings)
    single = jax.tree.map(lambda x: x[0], phases.begin(settings, team))
    advance = jax.jit(
        lambda progress, n: phases.advance(progress, n, team, hp, update_of(settings.algo), scale)
    )
    before = advance(single, 2)
    after = advance(before, 1)
    assert_equal(*(p.state.actor.banks for p in (before, after)))
    assert_equal(*(p.state.critic.banks for p in (before, after)))
    assert changed(before.state.actor.banks, single.state.actor.banks)


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("loop", ["agent", "epoch"])
def test_agents_take_as_many_steps_as_there_are_minibatches(loop, start):
    team, state = start(nps)
    hp = HP.replace(minibatches=3, loop=loop)
    after, report, _ = jax.jit(lambda s: a2po.update(s, team, hp))(state)
    np.testing.assert_allclose(after.value_norm.debias, 1 - 0.99999 ** (3 * HP.epochs), rtol=1e-4)
    assert all(np.isfinite(x) for x in report.values())
    assert changed(after.actor.banks, state.actor.banks)


def test_others_are_clipped_by_half_the_clip_unless_said():
    np.testing.assert_allclose(ratios.others_range(HP), (0.9, 1.1))
    np.testing.assert_allclose(ratios.others_range(HP.replace(clip=0.1)), (0.95, 1.05))
    np.testing.assert_allclose(ratios.others_range(HP.replace(clip=0.1, others_clip=0.1)),
                               (0.9, 1.1))  # fmt: skip


def test_padded_dimensions_count_in_no_mean():
    """Agent 1 of the counter has one of two dimensions; clip_fraction is a share of what exists."""
    exists = jnp.array([[1.0, 1.0], [1.0, 0.0]])
    moved = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(ppo.mean_over(exists, moved), [0.5, 1.0])
    change = jnp.log(jnp.array([[2.0, 4.0], [2.0, 1.0]]))
    np.testing.assert_allclose(
        ratios.AGGREGATIONS["clipped"](change, exists), [3.0, 2.0], rtol=1e-6
    )


def test_training_calls_gae(monkeypatch, start):
    team, state = start(ps)
    called = []
    original = returns.gae
    monkeypatch.setattr(returns, "gae", lambda **k: called.append(1) or original(**k))
    for update in UPDATES.values():
        jax.eval_shape(lambda s, update=update: update(s, team, HP), state)
    assert len(called) == 2
