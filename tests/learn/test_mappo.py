import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.envs import make
from lorasa_jax.envs.types import Box
from lorasa_jax.learn import a2po, mappo, ppo, rollout, value_norm
from lorasa_jax.learn import batch as batches
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.team import forward
from lorasa_jax.sharing import adapted, nps, ps
from lorasa_jax.sharing.spec import LoraSpec

ENVS, LENGTH, CHUNK = 4, 6, 2
HP = a2po.A2po(  # MAPPO's keys are among them
    loop="agent",
    num_envs=ENVS, rollout_length=LENGTH, chunk_length=CHUNK, epochs=2, clip=0.2, gamma=0.9,
    gae_lambda=0.8, entropy_coef=0.01,
)  # fmt: skip
LORA = adapted(ps(2), LoraSpec(rank=2, alpha=2.0))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), a, b)


def changed(a, b):
    return any(np.any(x != y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def weights(team, state):
    pairs = (team.actor, state.actor), (team.critic, state.critic)
    return [role.scheme.weights(learner.banks) for role, learner in pairs]


@pytest.fixture(scope="module")
def start(make_team, make_state):
    """start(env, actor scheme, critic scheme) -> (team, random state)."""

    def start(env, actor, critic):
        team = make_team(env, actor, critic)
        return team, make_state(team, ENVS)

    return start


@pytest.fixture(scope="module")
def lora(start, counter):
    """(compiled update of adapters on a frozen backbone, state before, its result)."""
    team, state = start(counter(), LORA, ps(2))
    update = jax.jit(lambda state: mappo.update(state, team, HP))
    return team, update, state, update(state)


@pytest.fixture(scope="module")
def gathered(start, counter):
    """A trajectory of a team without sharing, a batch of it, and an epoch on such batches."""
    team, state = start(counter(), nps(2), ps(2))
    actor, critic = weights(team, state)
    collect = jax.jit(
        lambda key, runner: rollout.unroll(
            key, team, actor, critic, runner, length=LENGTH, chunk=CHUNK
        )
    )
    _, trajectory, _ = collect(jax.random.key(0), state.runner)
    rng = np.random.default_rng(0)
    advantages, targets = (jnp.float32(rng.standard_normal((LENGTH, ENVS, 2))) for _ in range(2))
    batch = batches.prepare(trajectory, team, advantages, targets, blocks=1, clock=CHUNK)
    learners = state.actor, state.critic, value_norm.init(2)
    epoch = jax.jit(lambda batch: mappo.step(learners, batch, team, HP))
    return trajectory, team, batch, epoch


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("algo", [mappo, a2po], ids=["mappo", "a2po"])
def test_active_agents_without_a_legal_action_are_counted(algo, start, counter):
    """At an episode's third step, where agent 1 is not active, neither has a legal action."""

    class Stuck(counter):
        def _timestep(self, state, reward, terminated):
            timestep = super()._timestep(state, reward, terminated)
            return timestep._replace(legal=timestep.legal & (state.steps < 2))

    reports = {}
    for name, env in {"stuck": Stuck(), "fine": counter(), "box": counter(Box(2))}.items():
        team, state = start(env, ps(2), ps(2))
        update = jax.jit(lambda state, team=team: algo.update(state, team, HP)[1])
        reports[name] = update(state)
        if name == "stuck":
            key = jax.random.split(state.key)[1]
            collect = jax.jit(lambda state, key=key, t=team: rollout.collect(key, t, state, HP)[1])
            steps = collect(state).transitions
    without = np.asarray(steps.obs[..., 0, 0] == 2).sum()
    assert 0 < without < np.asarray(steps.active).sum() / 2
    np.testing.assert_allclose(
        reports["stuck"]["no_legal_action"], without / np.asarray(steps.active).sum(), rtol=1e-6
    )
    assert reports["fine"]["no_legal_action"] == 0.0
    assert "no_legal_action" not in reports["box"]


@pytest.mark.full
def test_losses_are_summed_over_blocks(monkeypatch, lora):
    team, _, before, (whole, whole_report, _) = lora
    monkeypatch.setattr(batches, "block_count", lambda *_: 3)
    parts, report, _ = jax.jit(lambda state: mappo.update(state, team, HP))(before)
    for name in ("actor", "critic"):
        banks = [getattr(state, name).banks for state in (parts, whole, before)]
        assert_close(*banks[:2], rtol=1e-4, atol=1e-5)
        assert changed(*banks[1:])
    assert_close(report, whole_report, rtol=1e-3, atol=1e-5)


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize(
    ("actor", "critic"),
    [(ps(2), ps(2)), (nps(2), nps(2)), (LORA, ps(2))],
    ids=["ps", "nps", "lora"],
)
def test_what_agents_see_alike_is_kept_once(start, counter, actor, critic):
    class Alike(counter):
        alike = property(lambda self: {"obs": 3, "state": 3})

    hp, results = HP.replace(minibatches=3), []
    for env in (counter(), Alike()):
        team, state = start(env, actor, critic)
        results.append(jax.jit(lambda s, t=team: mappo.update(s, t, hp)[:2])(state))
        assert changed(results[-1][0].critic.banks, state.critic.banks)
    assert_close(*[(after.actor.banks, after.critic.banks, report) for after, report in results],
                 rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("critic", [ps(2), nps(2)], ids=["ps", "nps"])
def test_agents_may_have_nothing_of_their_own(start, counter, critic):
    class Nameless(counter):
        def view(self, steps, total):
            obs, state = super().view(steps, total)
            return obs, jnp.repeat(state[:1], 2, axis=0)

    class Alike(Nameless):
        alike = property(lambda self: {"state": self.state_size})

    results = []
    for env in (Nameless(), Alike()):
        team, state = start(env, ps(2), critic)
        results.append(jax.jit(lambda s, t=team: mappo.update(s, t, HP)[0])(state))
        assert changed(results[-1].critic.banks, state.critic.banks)
    assert_close(*[after.critic.banks for after in results], rtol=1e-4, atol=1e-5)


def test_views_hold_what_the_inputs_held(gathered):
    trajectory, team, batch, _ = gathered
    labels = [jnp.zeros((LENGTH, ENVS, 2))] * 2
    found = batches.prepare(trajectory, team, *labels, blocks=1, clock=CHUNK, alike={"state": 3})
    np.testing.assert_array_equal(found.obs, batch.obs)
    assert found.state.common.shape[2:] == (1, 12, 3)
    whole = [jnp.repeat(found.state.common, 2, axis=2), found.state.own]
    np.testing.assert_allclose(jnp.concatenate(whole, axis=-1), batch.state, rtol=1e-5)


@pytest.mark.parametrize("parts", [2, 4])
def test_minibatches_deal_every_sequence_once(gathered, parts):
    trajectory, team, *_ = gathered
    rng = np.random.default_rng(1)
    arrays = [jnp.float32(rng.standard_normal((LENGTH, ENVS, 2))) for _ in range(2)]
    batch = batches.prepare(trajectory, team, *arrays, blocks=parts, clock=CHUNK)
    dealt = batches.minibatches(jax.random.key(3), batch, parts)
    assert dealt.obs.shape[:2] == (parts, 1)

    def rows(batch, lead):
        """[sequence, everything that belongs to it], in a fixed order."""
        parts = []
        for name, x in batch._asdict().items():
            if x is not None:
                x = np.asarray(x, float).reshape(-1, *x.shape[lead:])
                axis = 2 if name in ("first", "actor_carry", "critic_carry") else 3
                x = np.moveaxis(x, axis, 1)
                parts.append(x.reshape(x.shape[0] * x.shape[1], -1))
        joined = np.concatenate(parts, axis=1)
        return joined[np.lexsort(joined.T)]

    np.testing.assert_array_equal(rows(batch, 1), rows(dealt, 2))
    assert not np.array_equal(batch.target, dealt.target.reshape(batch.target.shape))


@pytest.mark.full
def test_minibatches_are_as_many_steps(start, counter):
    team, state = start(counter(), ps(2), ps(2))
    hp = HP.replace(minibatches=3)
    after, report, _ = jax.jit(lambda state: mappo.update(state, team, hp))(state)
    np.testing.assert_allclose(after.value_norm.debias, 1 - 0.99999 ** (3 * HP.epochs), rtol=1e-4)
    assert all(np.isfinite(x) for x in report.values())


def test_the_same_state_updates_to_the_same_state_bit_by_bit(lora):
    _, update, before, (after, *reports) = lora
    again, *same_reports = update(before)
    assert_equal(jax.random.key_data(again.key), jax.random.key_data(after.key))
    assert_equal((again._replace(key=0), same_reports), (after._replace(key=0), reports))


def test_another_key_updates_to_another_state(lora):
    _, update, before, (after, *_) = lora
    other, *_ = update(before._replace(key=jax.random.key(9)))
    assert changed(other.actor.banks["adapters"], after.actor.banks["adapters"])


def test_an_update_of_adapters_leaves_the_backbone_bit_identical(lora):
    _, _, before, (after, *_) = lora
    assert_equal(after.actor.banks["net"], before.actor.banks["net"])
    assert set(after.actor.opt_state) == {"adapters"}
    for layer, adapter in after.actor.banks["adapters"].items():
        assert changed(adapter, before.actor.banks["adapters"][layer])


def test_value_statistics_are_updated_once_an_epoch(lora):
    _, _, _, (after, *_) = lora
    np.testing.assert_allclose(after.value_norm.debias, 1 - 0.99999**HP.epochs, rtol=1e-4)


@pytest.mark.full
def test_the_first_epochs_ratio_is_one(start, counter):
    team, state = start(counter(action_space=Box(2)), LORA, ps(2))
    hp = HP.replace(epochs=1)
    _, report, _ = jax.jit(lambda state: mappo.update(state, team, hp))(state)
    assert abs(report["approx_kl"]) < 1e-6
    assert report["clip_fraction"] == 0.0
    assert report["actor_grad_norm"] > 1e-3


def test_inactive_samples_do_not_change_the_policys_step(gathered):
    *_, batch, epoch = gathered

    def disturbed(where):
        one = where[..., None]
        return epoch(
            batch._replace(
                obs=jnp.where(one, 1.0 - batch.obs, batch.obs),
                advantage=jnp.where(where, 50.0, batch.advantage),
                log_prob=jnp.where(one, batch.log_prob + 1.0, batch.log_prob),
            )
        )

    def policy(report):
        names = "policy_loss", "entropy", "clip_fraction", "approx_kl"
        return {name: report[name] for name in names}

    assert not batch.active.all()
    (actor, *_), report = epoch(batch)
    (same, *_), same_report = disturbed(~batch.active)
    assert_equal((same, policy(same_report)), (actor, policy(report)))
    (other, *_), _ = disturbed(batch.active)
    assert changed(other, actor)


def test_inactive_samples_still_train_the_critic(gathered):
    *_, batch, epoch = gathered
    (_, critic, _), _ = epoch(batch)
    (_, other, _), _ = epoch(
        batch._replace(target=jnp.where(batch.active, batch.target, 1.0 + batch.target))
    )
    assert changed(other, critic)


@pytest.fixture(scope="module")
def losses_by_ratio(start):
    """Sums of losses, joint and per dimension, of random samples far from the policy."""

    def losses(env):
        n, size = env.num_agents, env.action_space.size
        team, state = start(env, ps(n), ps(n))
        actor, critic = weights(team, state)
        rng = np.random.default_rng(0)

        def normal(*shape):
            return jnp.float32(rng.standard_normal((CHUNK, n, 8, *shape)))

        batch = Batch(
            obs=normal(env.observation_size), state=normal(env.state_size),
            action=0.3 * normal(size), log_prob=normal(size), value=normal(),
            legal=jnp.ones((CHUNK, n, 8, size), bool), active=jnp.ones((CHUNK, n, 8), bool),
            advantage=normal(), target=normal(), first=jnp.zeros((CHUNK, 8), bool),
            actor_carry=jnp.zeros((n, 8, 8)), critic_carry=jnp.zeros((n, 8, 8)),
        )  # fmt: skip

        def evaluate(batch):
            sums = [
                ppo.sum_losses(
                    actor,
                    critic,
                    value_norm.init(n),
                    batch,
                    team,
                    HP.replace(ratio=ratio),
                    HP.clip,
                )
                for ratio in ("joint", "per_dimension")
            ]
            _, outputs = forward(
                team.actor.network, actor, batch.actor_carry, batch.obs, batch.first,
                agent_axis=1, prepared=True,
            )  # fmt: skip
            log_prob = team.distribution.log_prob(outputs, batch.legal, batch.action)
            return *sums, jnp.exp(log_prob - batch.log_prob), batch.advantage

        return jax.jit(evaluate)(batch)

    return losses


def test_joint_and_per_dimension_ratios_agree_on_one_dimension(losses_by_ratio):
    joint, per_dimension, *_ = losses_by_ratio(make("probe_action_continuous"))
    assert_close(joint, per_dimension, rtol=1e-6)
    assert joint.clipped > 0


def test_the_joint_ratio_is_the_product_over_dimensions(losses_by_ratio, counter):
    joint, per_dimension, ratio, advantage = losses_by_ratio(counter(action_space=Box(2)))
    ratio, advantage = np.asarray(ratio, np.float64), np.asarray(advantage, np.float64)

    def loss(ratio, advantage):
        return -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).sum()

    np.testing.assert_allclose(joint.policy, loss(ratio.prod(-1), advantage), rtol=1e-4)
    np.testing.assert_allclose(per_dimension.policy, loss(ratio, advantage[..., None]), rtol=1e-4)
    assert abs(joint.policy - per_dimension.policy) > 0.1


@pytest.mark.parametrize("truncation", ["bootstrap", "authors"])
def test_estimate_equals_gae_written_as_a_loop(gathered, truncation):
    trajectory, *_ = gathered
    norm = value_norm.update(value_norm.init(2), jnp.array([2.0, -1.0]), jnp.array([13.0, 2.0]))
    mean, std = np.array([2.0, -1.0]), np.array([3.0, 1.0])
    advantages, targets = ppo.estimate(trajectory, norm, HP.replace(truncation=truncation))
    steps = jax.tree.map(lambda x: np.asarray(rollout.merge_time(x)), trajectory.transitions)
    values = steps.value * std + mean
    after, ends = (
        np.asarray(v) * std + mean for v in (trajectory.last_value, trajectory.end_values)
    )
    expected, following = np.zeros((LENGTH, ENVS, 2)), np.zeros((ENVS, 2))
    for t in reversed(range(LENGTH)):
        for env in range(ENVS):
            terminated, truncated = steps.terminated[t, env], steps.truncated[t, env]
            next_value = after[env] if t == LENGTH - 1 else values[t + 1, env]
            if truncated:
                next_value = ends[steps.slot[t, env], env]
            error = steps.reward[t, env] + 0.9 * next_value * (not terminated) - values[t, env]
            following[env] = error + 0.9 * 0.8 * following[env] * (not (terminated or truncated))
            if truncated and truncation == "authors":
                following[env] = 0.0
        expected[t] = following
    assert steps.truncated[:-1].any()
    assert steps.terminated[:-1].any()
    np.testing.assert_allclose(advantages, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(targets, expected + values, rtol=1e-3, atol=1e-3)
