"""MAPPO (Yu et al. 2022) with recurrent actors and critics, for any sharing scheme."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import devices, observed, ppo, returns, rollout, team, value_norm
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.reports import no_legal_action, step_report
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.target_kl import guarded, means
from lorasa_jax.learn.team import Team


@dataclass(frozen=True)
class Mappo(Hyperparameters):
    """MAPPO's keys: those of all."""

    name: str = "mappo"


def update(
    state: TrainState, team_: Team, hp: Hyperparameters
) -> tuple[TrainState, dict[str, jax.Array], Episodes]:
    """One iteration: play a trajectory, estimate advantages, then `epochs` passes over it.

    A pass is one full-batch step, or one step for each of `minibatches` random parts; passes end
    early where the policy has moved by more than `target_kl`.

    Returns the new state, means over epochs of what the steps reported, and the episodes that
    ended in the trajectory.
    """
    key, collect_key = jax.random.split(state.key)
    collect_key = devices.own_key(collect_key, hp)
    runner, trajectory, episodes = rollout.collect(collect_key, team_, state, hp)
    advantages, targets = ppo.estimate(trajectory, state.value_norm, hp)
    batch = _batch(state, trajectory, advantages, targets, team_, hp)
    one_step = guarded(
        lambda learners, inputs: step(learners, inputs[0], team_, hp, inputs[1]), hp.target_kl
    )

    def epoch(carry, key):
        parts = batches.minibatches(key, batch, hp.minibatches)
        return jax.lax.scan(one_step, carry, (parts, ppo.step_keys(key, hp)))

    ((actor, critic, norm), _), reports = jax.lax.scan(
        epoch,
        ((state.actor, state.critic, state.value_norm), jnp.zeros((), bool)),
        jax.random.split(jax.random.fold_in(collect_key, 1), hp.epochs),
    )
    report = means(reports) | {"value_mean": devices.mean(targets.mean(), hp)}
    report |= no_legal_action(trajectory, team_, hp)
    statistics = observed.update(state.observed, trajectory, team_, hp)
    state = TrainState(key, actor, critic, norm, runner, statistics)
    return state, report, devices.total(episodes, hp)


def _batch(state, trajectory, advantages, targets, team_, hp) -> batches.Batch:
    """The trajectory in blocks of sequences, with normalised advantages."""
    active = rollout.merge_time(trajectory.transitions.active)
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length // hp.minibatches
    blocks = batches.block_count(sequences, hp.chunk_length * team_.env.num_agents)
    return batches.prepare(
        trajectory._replace(transitions=observed.shown(state.observed, trajectory.transitions)),
        team_,
        returns.normalise(advantages, active, lambda x: devices.total(x, hp)),
        targets,
        blocks=blocks * hp.minibatches,
        clock=hp.chunk_length,
        alike=getattr(team_.env, "alike", {}),
    )


def step(learners, batch: batches.Batch, team_: Team, hp, key=None):
    """One gradient step of actor and critic on a batch, summed over its blocks.

    key: for the schemes' penalties, where they draw something.
    """
    actor, critic, norm = learners
    over = (0, 1, 3)
    moments = batch.target.mean(over), jnp.square(batch.target).mean(over)
    norm = value_norm.update(norm, *devices.mean(moments, hp))
    trained_actor, frozen_actor = team.split(team_.actor, actor.banks)
    trained_critic, frozen_critic = team.split(team_.critic, critic.banks)

    def weights(trained):
        actor_banks, critic_banks = trained
        return (
            team_.actor.scheme.weights({**actor_banks, **frozen_actor}),
            team_.critic.scheme.weights({**critic_banks, **frozen_critic}),
        )

    (actor_gradient, critic_gradient), sums = ppo.gradients(
        weights, (trained_actor, trained_critic), norm, batch, team_, hp, hp.clip
    )
    active = devices.total(batches.active_samples(batch, team_.actor), hp)
    agents = batch.active.shape[2]
    samples = jnp.full(agents, hp.devices * batch.active.size / agents)
    actor_extra, actor_measures = team.penalty(team_.actor, actor.banks, key)
    critic_extra, critic_measures = team.penalty(team_.critic, critic.banks, key)
    actor, actor_norm = team.step(
        team_.actor, actor, actor_gradient, active, hp.lr_scale, actor_extra
    )
    critic, critic_norm = team.step(
        team_.critic, critic, critic_gradient, samples, hp.lr_scale, critic_extra
    )
    acted = jnp.maximum(active.sum(), 1.0)
    report = step_report(sums, acted, samples.sum(), actor_norm, critic_norm)
    report |= team.named(actor_measures, critic_measures)
    return (actor, critic, norm), report
