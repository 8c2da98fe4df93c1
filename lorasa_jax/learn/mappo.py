"""MAPPO (Yu et al. 2022) with recurrent actors and critics, for any sharing scheme."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import losses, returns, rollout, team, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.rollout import Episodes, Runner
from lorasa_jax.learn.team import Learner, Role, Team, forward
from lorasa_jax.learn.value_norm import ValueNorm


class Hyperparameters(NamedTuple):
    """MAPPO's numbers; see paper Tables 3-9 for the values of each task.

    rollout_length: steps per environment and update; chunk_length: steps that gradients reach
    back; ratio: `per_dimension` clips each action dimension's ratio, `joint` their product.
    truncation: `bootstrap` from the true last observation, or `authors`.
    """

    num_envs: int
    rollout_length: int
    chunk_length: int
    epochs: int
    clip: float
    gamma: float
    gae_lambda: float
    entropy_coef: float
    ratio: str = "per_dimension"
    truncation: str = "bootstrap"


class TrainState(NamedTuple):
    """All that changes while a team learns."""

    key: jax.Array
    actor: Learner
    critic: Learner
    value_norm: ValueNorm
    runner: Runner


class Losses(NamedTuple):
    """Sums over samples of one pass, for gradients (policy, value) and for reports."""

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array
    clipped: jax.Array
    kl: jax.Array


def update(
    state: TrainState, team_: Team, hp: Hyperparameters
) -> tuple[TrainState, dict[str, jax.Array], Episodes]:
    """One iteration: play a window, estimate advantages, then `epochs` full-batch steps.

    Returns the new state, means over epochs of what the steps reported, and the episodes that
    ended in the window.
    """
    key, collect_key = jax.random.split(state.key)
    runner, window, episodes = rollout.collect(
        collect_key, team_, _weights(team_.actor, state.actor.banks),
        _weights(team_.critic, state.critic.banks), state.runner,
        length=hp.rollout_length, chunk=hp.chunk_length,
    )  # fmt: skip
    advantages, targets = estimate(window, state.value_norm, hp)
    active = rollout.merge_time(window.transitions.active)
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length
    batch = batches.prepare(
        window,
        returns.normalise(advantages, active),
        targets,
        blocks=batches.block_count(sequences, hp.chunk_length * team_.env.num_agents),
        clock=hp.chunk_length,
    )
    target_moments = targets.mean((0, 1)), jnp.square(targets).mean((0, 1))
    counts = (
        active.sum((0, 1)).astype(float),
        jnp.full(team_.env.num_agents, float(hp.num_envs * hp.rollout_length)),
    )

    def epoch(learners, _):
        return update_epoch(learners, batch, target_moments, counts, team_, hp)

    (actor, critic, norm), reports = jax.lax.scan(
        epoch, (state.actor, state.critic, state.value_norm), length=hp.epochs
    )
    reports = jax.tree.map(jnp.mean, reports)
    reports["value_mean"] = targets.mean()
    return TrainState(key, actor, critic, norm, runner), reports, episodes


def estimate(window, norm: ValueNorm, hp: Hyperparameters) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets [time, env, agent] in units of return."""
    window = window._replace(
        last_value=value_norm.denormalise(norm, window.last_value),
        end_values=value_norm.denormalise(norm, window.end_values),
    )
    steps = jax.tree.map(rollout.merge_time, window.transitions)
    values = value_norm.denormalise(norm, steps.value)
    advantages = returns.gae(
        rewards=jnp.broadcast_to(steps.reward[..., None], values.shape),
        values=values,
        next_values=rollout.next_values(window, values),
        terminated=jnp.broadcast_to(steps.terminated[..., None], values.shape).astype(float),
        truncated=jnp.broadcast_to(steps.truncated[..., None], values.shape).astype(float),
        gamma=hp.gamma,
        gae_lambda=hp.gae_lambda,
        bootstrap=hp.truncation == "bootstrap",
    )
    return advantages, advantages + values


def update_epoch(learners, batch: Batch, target_moments, counts, team_: Team, hp):
    """One gradient step of actor and critic on the whole batch, summed over its blocks."""
    actor, critic, norm = learners
    norm = value_norm.update(norm, *target_moments)
    trained_actor, frozen_actor = team.split(team_.actor, actor.banks)
    trained_critic, frozen_critic = team.split(team_.critic, critic.banks)

    def loss(trained, block):
        actor_banks, critic_banks = trained
        sums = _losses(
            _weights(team_.actor, {**actor_banks, **frozen_actor}),
            _weights(team_.critic, {**critic_banks, **frozen_critic}),
            norm, block, team_, hp,
        )  # fmt: skip
        bonus = hp.entropy_coef * sums.entropy if hp.entropy_coef else 0.0
        return sums.policy + sums.value - bonus, sums

    def accumulate(total, block):
        new = jax.grad(loss, has_aux=True)((trained_actor, trained_critic), block)
        return jax.tree.map(jnp.add, total, new), None

    zero = jax.tree.map(jnp.zeros_like, (trained_actor, trained_critic))
    zeros = (zero, Losses(*[jnp.zeros(())] * len(Losses._fields)))
    ((actor_gradient, critic_gradient), sums), _ = jax.lax.scan(accumulate, zeros, batch)
    active, samples = counts
    actor, actor_norm = team.step(team_.actor, actor, actor_gradient, active)
    critic, critic_norm = team.step(team_.critic, critic, critic_gradient, samples)
    acted = jnp.maximum(active.sum(), 1.0)
    report = {
        "policy_loss": sums.policy / acted,
        "value_loss": sums.value / samples.sum(),
        "entropy": sums.entropy / acted,
        "clip_fraction": sums.clipped / acted,
        "approx_kl": sums.kl / acted,
        "actor_grad_norm": actor_norm,
        "critic_grad_norm": critic_norm,
    }
    return (actor, critic, norm), report


def _weights(role: Role, banks):
    return role.scheme.weights(banks)


def _losses(actor_weights, critic_weights, norm, block: Batch, team_: Team, hp) -> Losses:
    """Sums over one block's samples [step, agent, sequence]; only active ones count for policy."""
    _, outputs = forward(
        team_.actor.network, actor_weights, block.actor_carry, block.obs, block.first, agent_axis=1
    )
    log_prob = team_.distribution.log_prob(outputs, block.legal, block.action)
    change = log_prob - block.log_prob
    if hp.ratio == "joint":
        change = change.sum(-1, keepdims=True)
    ratio = jnp.exp(change)
    active = block.active.astype(ratio.dtype)
    policy = losses.policy_loss(ratio, block.advantage, hp.clip)
    entropy = team_.distribution.entropy(outputs, block.legal)
    _, out = forward(
        team_.critic.network, critic_weights, block.critic_carry, block.state, block.first,
        agent_axis=1,
    )  # fmt: skip
    target = jnp.moveaxis(value_norm.normalise(norm, jnp.moveaxis(block.target, 1, -1)), -1, 1)
    value = losses.value_loss(out["value"][..., 0], block.value, target, hp.clip)
    return Losses(
        policy=jnp.sum(policy * active),
        value=jnp.sum(value),
        entropy=jnp.sum(entropy * active),
        clipped=jnp.sum((jnp.abs(ratio - 1.0) > hp.clip).mean(-1) * active),
        kl=jnp.sum((ratio - 1.0 - change).sum(-1) * active),
    )
