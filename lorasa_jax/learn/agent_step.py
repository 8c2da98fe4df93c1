"""Gradient steps of one agent alone, for algorithms that update agent by agent."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lorasa_jax.learn import devices, ppo, team, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.ppo import Hyperparameters
from lorasa_jax.learn.reports import step_report
from lorasa_jax.learn.team import Learner, Role, Team
from lorasa_jax.learn.value_norm import ValueNorm
from lorasa_jax.sharing import entry_of


def step(learners, batch: Batch, agent, clip, team_: Team, hp: Hyperparameters, key=None):
    """One gradient step of an agent [] on its own samples, summed over their blocks.

    learners: actor, critic and value statistics. key: for the schemes' penalties, where they draw
    something. Returns the learners, and a report.
    """
    actor, critic, norm = learners
    norm = _with_targets(norm, batch.target, agent, hp)
    actor_entries, actor_weights = _trainable(team_.actor, actor, agent)
    critic_entries, critic_weights = _trainable(team_.critic, critic, agent)

    def weights(entries):
        return actor_weights(entries[0]), critic_weights(entries[1])

    (actor_gradient, critic_gradient), sums = ppo.gradients(
        weights, (actor_entries, critic_entries), _of_agent(norm, agent), batch, team_, hp, clip
    )
    acted = devices.total(batch.active.sum().astype(float), hp)
    samples = jnp.float32(hp.devices * batch.target.size)
    actor_extra, actor_measures = team.penalty(team_.actor, actor.banks, key)
    critic_extra, critic_measures = team.penalty(team_.critic, critic.banks, key)
    actor, actor_norm = step_agent(
        team_.actor, actor, actor_gradient, agent, acted, hp.lr_scale, actor_extra
    )
    critic, critic_norm = step_agent(
        team_.critic, critic, critic_gradient, agent, samples, hp.lr_scale, critic_extra
    )
    report = step_report(sums, jnp.maximum(acted, 1.0), samples, actor_norm, critic_norm)
    report |= team.named(actor_measures, critic_measures)
    return (actor, critic, norm), report


def critic_step(learners, batch: Batch, agent, clip, team_: Team, hp: Hyperparameters, key=None):
    """`step` of the critic alone; returns actor, critic and value statistics."""
    actor, critic, norm = learners
    norm = _with_targets(norm, batch.target, agent, hp)
    actor_weights = agent_weights(team_.actor, actor, agent)
    entries, critic_weights = _trainable(team_.critic, critic, agent)

    def weights(entries):
        return actor_weights, critic_weights(entries)

    norm_of_agent = _of_agent(norm, agent)
    gradient, _ = ppo.gradients(weights, entries, norm_of_agent, batch, team_, hp, clip)
    samples = jnp.float32(hp.devices * batch.target.size)
    extra, _ = team.penalty(team_.critic, critic.banks, key)
    critic, _ = step_agent(team_.critic, critic, gradient, agent, samples, hp.lr_scale, extra)
    return actor, critic, norm


def step_agent(
    role: Role,
    learner: Learner,
    gradients: dict[str, Any],
    agent: jax.Array,
    count: jax.Array,
    lr_scale=None,
    extra: dict[str, Any] | None = None,
) -> tuple[Learner, jax.Array]:
    """One optimiser step for the entries that one agent [] uses; all others stay as they are.

    gradients {bank: entry} are those of a sum over `count` samples; lr_scale and extra, which has
    all entries, as for `step`.
    Returns the learner and the largest gradient norm before clipping.
    """
    banks, opt_state, norms = dict(learner.banks), dict(learner.opt_state), []
    for name, gradient in gradients.items():
        entry = role.scheme.entry(name, agent)
        mean = jax.tree.map(lambda x: x / jnp.maximum(count, 1.0), gradient)
        mean = team.with_extra(mean, extra and entry_of(extra[name], entry))
        norms.append(optax.global_norm(mean))
        old = entry_of(learner.banks[name], entry), entry_of(learner.opt_state[name], entry)
        updates, new_state = role.optimiser.update(mean, old[1])
        new = optax.apply_updates(old[0], team.scaled(updates, lr_scale))
        write = lambda all_, one, e=entry: all_.at[e].set(one)  # noqa: E731
        banks[name] = jax.tree.map(write, banks[name], new)
        opt_state[name] = jax.tree.map(write, opt_state[name], new_state)
    return Learner(banks, opt_state), jnp.stack(norms).max()


def _with_targets(norm: ValueNorm, targets, agent, hp) -> ValueNorm:
    """The value statistics with an agent's own entry updated by its targets."""
    moments = devices.mean((targets.mean(), jnp.square(targets).mean()), hp)
    updated = value_norm.update(norm, *moments)
    is_agent = jnp.arange(norm.mean.shape[0]) == agent
    return jax.tree.map(lambda new, old: jnp.where(is_agent, new, old), updated, norm)


def _of_agent(norm: ValueNorm, agent) -> ValueNorm:
    return jax.tree.map(lambda x: x[agent][None], norm)


def agent_weights(role: Role, learner: Learner, agent):
    """The current weights of one agent [], without an agent axis, and axes of None."""
    return role.scheme.agent_weights(role.scheme.entries(learner.banks, agent))


def _trainable(role, learner, agent):
    """An agent's entries of trained banks, and its weights as a function of such entries."""
    trained, frozen = (role.scheme.entries(part, agent) for part in team.split(role, learner.banks))
    return trained, lambda trained: role.scheme.agent_weights({**frozen, **trained})
