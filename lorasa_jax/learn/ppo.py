"""What MAPPO, A2PO and HAPPO have in common: numbers, state, losses, and gradients by blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn import devices, losses, returns, rollout, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.rollout import Runner
from lorasa_jax.learn.team import Learner, Team, forward
from lorasa_jax.learn.value_norm import ValueNorm


class Hyperparameters(NamedTuple):
    """The algorithms' numbers; see paper Tables 3-9 for the values of each task.

    rollout_length: steps per environment and update; chunk_length: steps that gradients reach
    back; ratio: `per_dimension` clips each action dimension's ratio, `joint` their product.
    truncation: `bootstrap` from the true last observation, or `authors`. minibatches: gradient
    steps in a pass over the window (MAPPO). devices: over which the environments of all are split,
    `num_envs` on each.
    The rest is for agent-by-agent updates, see a2po.py.
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
    minibatches: int = 1
    devices: int = 1
    loop: str = "agent"
    order: str = "semi_greedy"
    trace: str = "capped"
    clip_schedule: str = "widening"
    others: str = "clipped"
    others_clip: float = 0.1
    refresh: str = "turn"
    two_stage: bool = False


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


def estimate(window, norm: ValueNorm, hp: Hyperparameters) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets [time, env, agent] in units of return."""
    steps = td_errors(window, norm, hp)
    advantages = returns.traced(steps, None, hp.gae_lambda * hp.gamma, "capped")
    return advantages, advantages + steps.values


def td_errors(window, norm: ValueNorm, hp: Hyperparameters) -> returns.Steps:
    """What traces work on, of all agents, in units of return."""
    window = window._replace(
        last_value=value_norm.denormalise(norm, window.last_value),
        end_values=value_norm.denormalise(norm, window.end_values),
    )
    steps = jax.tree.map(rollout.merge_time, window.transitions)
    values = value_norm.denormalise(norm, steps.value)
    return returns.steps(
        rewards=jnp.broadcast_to(steps.reward[..., None], values.shape),
        values=values,
        next_values=rollout.next_values(window, values),
        terminated=jnp.broadcast_to(steps.terminated[..., None], values.shape).astype(float),
        truncated=jnp.broadcast_to(steps.truncated[..., None], values.shape).astype(float),
        gamma=hp.gamma,
        bootstrap=hp.truncation == "bootstrap",
    )


def gradients(
    weights: Callable, trained: Any, norm: ValueNorm, batch: Batch, team: Team, hp, clip
) -> tuple[Any, Losses]:
    """The gradient of the batch's summed loss with respect to `trained`, and the sums.

    weights(trained) -> (actor weights, critic weights). The batch is walked block by block; sums
    are those of all devices.
    """

    def loss(trained, block):
        sums = sum_losses(*weights(trained), norm, block, team, hp, clip)
        bonus = hp.entropy_coef * sums.entropy if hp.entropy_coef else 0.0
        return sums.policy + sums.value - bonus, sums

    def accumulate(total, block):
        new = jax.grad(loss, has_aux=True)(trained, block)
        return jax.tree.map(jnp.add, total, new), None

    zeros = (
        jax.tree.map(jnp.zeros_like, trained),
        Losses(*[jnp.zeros(())] * len(Losses._fields)),
    )
    return devices.total(jax.lax.scan(accumulate, zeros, batch)[0], hp)


def sum_losses(actor_weights, critic_weights, norm, block: Batch, team: Team, hp, clip) -> Losses:
    """Sums over one block's samples [step, agent, sequence]; only active ones count for policy."""
    log_prob, outputs = log_probs(actor_weights, block, team)
    change = log_prob - block.log_prob
    if hp.ratio == "joint":
        change = change.sum(-1, keepdims=True)
    ratio = jnp.exp(change)
    active = block.active.astype(ratio.dtype)
    policy = losses.policy_loss(ratio, block.advantage, clip, block.others)
    entropy = team.distribution.entropy(outputs, block.legal)
    _, out = forward(
        team.critic.network, critic_weights, block.critic_carry, block.state, block.first,
        agent_axis=1, prepared=True,
    )  # fmt: skip
    target = jnp.moveaxis(value_norm.normalise(norm, jnp.moveaxis(block.target, 1, -1)), -1, 1)
    value = losses.value_loss(out["value"][..., 0], block.value, target, hp.clip)
    return Losses(
        policy=jnp.sum(policy * active),
        value=jnp.sum(value),
        entropy=jnp.sum(entropy * active),
        clipped=jnp.sum((jnp.abs(ratio - 1.0) > clip).mean(-1) * active),
        kl=jnp.sum((ratio - 1.0 - change).sum(-1) * active),
    )


def log_probs(actor_weights, block: Batch, team: Team):
    """(log-probabilities of the stored actions [step, agent, sequence, dimension], outputs)."""
    _, outputs = forward(
        team.actor.network, actor_weights, block.actor_carry, block.obs, block.first,
        agent_axis=1, prepared=True,
    )  # fmt: skip
    return team.distribution.log_prob(outputs, block.legal, block.action), outputs


def report(sums: Losses, acted, samples, actor_norm, critic_norm) -> dict[str, jax.Array]:
    """Means over samples for people, from sums."""
    return {
        "policy_loss": sums.policy / acted,
        "value_loss": sums.value / samples,
        "entropy": sums.entropy / acted,
        "clip_fraction": sums.clipped / acted,
        "approx_kl": sums.kl / acted,
        "actor_grad_norm": actor_norm,
        "critic_grad_norm": critic_norm,
    }
