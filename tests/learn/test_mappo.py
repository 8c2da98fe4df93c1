import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs import make
from lorasa_jax.envs.types import Box
from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import mappo, rollout, team, value_norm
from lorasa_jax.policy.lora import LoraSpec
from lorasa_jax.policy.sharing import adapted, nps, ps

HP = mappo.Hyperparameters(
    num_envs=4, rollout_length=12, chunk_length=4, epochs=2, clip=0.2, gamma=0.9, gae_lambda=0.8,
    entropy_coef=0.01,
)  # fmt: skip
LORA = adapted(ps(2), LoraSpec(rank=2, alpha=2.0))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), a, b)


def changed(a, b):
    return any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture(scope="module")
def start(make_team, make_state):
    """start(env, actor scheme, critic scheme) -> (team, state)."""

    def start(env, actor, critic, **options):
        team_ = make_team(env, actor, critic, **options)
        return team_, make_state(team_, HP.num_envs)

    return start


@pytest.fixture(scope="module")
def lora(start, counter):
    """An update of adapters on a frozen backbone, with Adam: (team, update, before, after)."""
    team_, state = start(counter(), LORA, ps(2), optimiser=team.adam(1e-2, 10.0))
    update = jax.jit(lambda state: mappo.update(state, team_, HP))
    return team_, update, state, update(state)


@pytest.fixture(scope="module")
def gathered(start, counter):
    """A window of a team without sharing, its batch, and one compiled epoch on such batches."""
    team_, state = start(counter(), nps(2), ps(2))
    weights = [
        role.scheme.weights(learner.banks)
        for role, learner in ((team_.actor, state.actor), (team_.critic, state.critic))
    ]
    _, window, _ = jax.jit(
        lambda key, runner: rollout.collect(key, team_, *weights, runner, length=12, chunk=4)
    )(jax.random.key(0), state.runner)
    rng = np.random.default_rng(0)
    advantages, targets = (jnp.float32(rng.standard_normal((12, 4, 2))) for _ in range(2))
    batch = batches.prepare(window, advantages, targets, blocks=1, clock=4)
    moments = jnp.zeros(2), jnp.ones(2)
    counts = batch.active.sum((0, 1, 3)).astype(float), jnp.full(2, 48.0)
    learners = (state.actor, state.critic, value_norm.init(2))
    epoch = jax.jit(lambda batch: mappo.update_epoch(learners, batch, moments, counts, team_, HP))
    return window, batch, epoch


def test_losses_are_summed_over_blocks(monkeypatch, start):
    team_, state = start(make("specialisation_2"), ps(2), nps(2))
    after = {}
    for blocks in (1, 3):
        monkeypatch.setattr(batches, "block_count", lambda *_, blocks=blocks: blocks)
        after[blocks], report, _ = jax.jit(lambda state: mappo.update(state, team_, HP))(state)
        after[blocks] = after[blocks].actor.banks, after[blocks].critic.banks, report
    assert_close(after[1], after[3], rtol=1e-3, atol=1e-5)
    assert changed(after[1][0], state.actor.banks)
    assert changed(after[1][1], state.critic.banks)


def test_the_same_state_updates_to_the_same_state_bit_by_bit(lora):
    _, update, before, after = lora
    again = update(before)
    plain = [(jax.random.key_data(x[0].key), x[0]._replace(key=0), x[1:]) for x in (after, again)]
    assert_equal(*plain)


def test_another_key_updates_to_another_state(lora):
    _, update, before, after = lora
    other = update(before._replace(key=jax.random.key(9)))
    assert changed(other[0].actor.banks["adapters"], after[0].actor.banks["adapters"])


def test_an_update_of_adapters_leaves_the_backbone_bit_identical(lora):
    _, _, before, (after, *_) = lora
    assert_equal(after.actor.banks["net"], before.actor.banks["net"])
    assert set(after.actor.opt_state) == {"adapters"}
    for layer, adapter in after.actor.banks["adapters"].items():
        assert changed(adapter, before.actor.banks["adapters"][layer])


def test_value_statistics_are_updated_once_an_epoch(lora):
    _, _, _, (after, *_) = lora
    np.testing.assert_allclose(after.value_norm.debias, 1 - 0.99999**HP.epochs, rtol=1e-4)


@pytest.mark.parametrize("space", [None, Box(2)], ids=["discrete", "continuous"])
def test_the_first_epochs_ratio_is_one(start, counter, space):
    env = counter() if space is None else counter(action_space=space)
    team_, state = start(env, LORA, ps(2))
    hp = HP._replace(epochs=1)
    _, report, _ = jax.jit(lambda state: mappo.update(state, team_, hp))(state)
    assert abs(report["approx_kl"]) < 1e-6
    assert report["clip_fraction"] == 0.0
    assert report["actor_grad_norm"] > 1e-3


def test_inactive_samples_do_not_change_the_policys_step(gathered):
    _, batch, epoch = gathered
    assert not batch.active.all()
    (actor, _, _), report = epoch(batch)

    def disturbed(where):
        return batch._replace(
            advantage=jnp.where(where, 50.0, batch.advantage),
            log_prob=jnp.where(where[..., None], batch.log_prob + 1.0, batch.log_prob),
        )

    (same, _, _), same_report = epoch(disturbed(~batch.active))
    assert_equal(same, actor)
    assert_equal(*({k: r[k] for k in ("policy_loss", "approx_kl", "clip_fraction", "entropy")}
                   for r in (same_report, report)))  # fmt: skip
    (other, _, _), _ = epoch(disturbed(batch.active))
    assert changed(other, actor)


def test_inactive_samples_still_train_the_critic(gathered):
    _, batch, epoch = gathered
    moved = batch._replace(target=jnp.where(batch.active, batch.target, 3.0))
    (_, critic, _), _ = epoch(batch)
    (_, other, _), _ = epoch(moved)
    assert changed(other, critic)


def test_blocks_of_a_batch_sum_to_the_whole(gathered):
    window, whole, epoch = gathered
    split = jax.tree.map(
        lambda x: jnp.stack(jnp.split(x[0], 3, axis=-1 if x.ndim == 4 else 2)), whole
    )._replace(**{name: _carries(getattr(whole, name)) for name in ("actor_carry", "critic_carry")})
    split = split._replace(first=jnp.stack(jnp.split(whole.first[0], 3, axis=-1)))
    split = split._replace(
        **{name: jnp.stack(jnp.split(getattr(whole, name)[0], 3, axis=2))
           for name in ("obs", "state", "action", "log_prob", "value", "legal", "active",
                        "advantage", "target")}
    )  # fmt: skip
    assert_close(epoch(split), epoch(whole), rtol=1e-3, atol=1e-5)


def _carries(carry):
    return jnp.stack(jnp.split(carry[0], 3, axis=1))


@pytest.fixture(scope="module")
def one_sided(start):
    def run(env):
        team_, state = start(env, ps(env.num_agents), ps(env.num_agents))
        weights = [
            role.scheme.weights(learner.banks)
            for role, learner in ((team_.actor, state.actor), (team_.critic, state.critic))
        ]
        _, window, _ = rollout.collect(
            jax.random.key(0), team_, *weights, state.runner, length=4, chunk=4
        )
        shape = (4, HP.num_envs, env.num_agents)
        advantages = jax.random.normal(jax.random.key(1), shape)
        batch = batches.prepare(window, advantages, advantages, blocks=1, clock=4)
        noise = 0.3 * jax.random.normal(jax.random.key(2), batch.log_prob.shape)
        batch = batch._replace(log_prob=batch.log_prob + noise)
        block = jax.tree.map(lambda x: x[0], batch)
        norm = value_norm.init(env.num_agents)
        return [
            mappo._losses(*weights, norm, block, team_, HP._replace(ratio=ratio))
            for ratio in ("joint", "per_dimension")
        ]

    return run


def test_ratios_joint_and_per_dimension_agree_on_one_dimension(one_sided):
    joint, per_dimension = one_sided(make("probe_action_continuous"))
    assert_close(joint, per_dimension, rtol=1e-6)
    assert joint.clipped > 0


def test_ratios_joint_and_per_dimension_differ_on_two_dimensions(one_sided, counter):
    joint, per_dimension = one_sided(counter(action_space=Box(2)))
    assert abs(joint.policy - per_dimension.policy) > 0.1
    assert joint.value == per_dimension.value


@pytest.mark.parametrize("truncation", ["bootstrap", "authors"])
def test_estimate_equals_gae_written_as_a_loop(gathered, truncation):
    window, _, _ = gathered
    norm = value_norm.update(value_norm.init(2), jnp.array([2.0, -1.0]), jnp.array([13.0, 2.0]))
    mean, std = np.array([2.0, -1.0]), np.array([3.0, 1.0])
    advantages, targets = mappo.estimate(window, norm, HP._replace(truncation=truncation))
    steps = jax.tree.map(lambda x: np.asarray(rollout.merge_time(x)), window.transitions)
    values = steps.value * std + mean
    expected, following = np.zeros((12, 4, 2)), np.zeros((4, 2))
    after = np.asarray(window.last_value) * std + mean
    for t in reversed(range(12)):
        for env in range(4):
            terminated, truncated = steps.terminated[t, env], steps.truncated[t, env]
            next_value = after[env] if t == 11 else values[t + 1, env]
            if truncated:
                next_value = np.asarray(window.end_values)[steps.slot[t, env], env] * std + mean
            error = steps.reward[t, env] + 0.9 * next_value * (not terminated) - values[t, env]
            following[env] = error + 0.72 * following[env] * (not (terminated or truncated))
            if truncated and truncation == "authors":
                following[env] = 0.0
        expected[t] = following
    assert steps.truncated.any() and steps.terminated.any()
    np.testing.assert_allclose(advantages, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(targets, expected + values, rtol=1e-3, atol=1e-3)
