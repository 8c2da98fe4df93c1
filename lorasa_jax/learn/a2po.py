"""Agent-by-agent policy optimisation: A2PO (Wang et al. 2023) and HAPPO, for any sharing scheme.

Agents take turns. Later agents correct for what the earlier ones changed: in the loss by the
product of their probability ratios, and, under A2PO, in the advantages by traces that those
ratios shorten. The keys that distinguish the forms (`A2po`):

loop           `agent`: a turn is `epochs` steps of one agent, agents once each (MuJoCo);
               `epoch`: a turn is one step, agents `epochs` times each (SMAX)
order          rows of orders.ORDERS: `semi_greedy` (the highest score and a random one by turns),
               `random`, `fixed`
trace          rows of traces.TRACES; `capped` is A2PO's, `none` HAPPO's
clip_schedule  rows of clips.CLIPS
others         `clipped`: others' mean ratio over action dimensions, their product clipped to
               1 +- others_clip, inside the own ratio's clip (A2PO); `free`: their joint ratio,
               unclipped, times the advantage (HAPPO)
refresh        when others' ratios are computed where training one agent changes others (shared
               parameters): `turn`, at its beginning, or `step`, before every pass over the
               trajectory, as the authors' code does. For independent agents both are the same.
trace_others   whose ratios a trace takes in rounds after the first (loop `epoch`): `all` others,
               who have all been updated by then; `preceding`: those before it in the round, after
               all traces were taken anew at its beginning, as the authors' code does
two_stage      one step of the critic alone before every step
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.keys import key
from lorasa_jax.learn import agent_step, devices, observed, ppo, ratios, returns, rollout, traces
from lorasa_jax.learn import batch as batches
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.clips import CLIPS
from lorasa_jax.learn.orders import ORDERS, Place, places
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.ratios import OTHERS
from lorasa_jax.learn.reports import no_legal_action
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.target_kl import guarded, means
from lorasa_jax.learn.team import Learner, Team
from lorasa_jax.learn.value_norm import ValueNorm


@dataclass(frozen=True)
class A2po(Hyperparameters):
    """The keys of agent-by-agent updates, with A2PO's defaults."""

    name: str = "a2po"
    loop: str = key(
        None, "all epochs of one agent, then the next; or all agents, every epoch",
        choices=("agent", "epoch"), cell=True,
    )  # fmt: skip
    order: str = key(
        "semi_greedy", "who comes first: the highest score and a random one by turns, or chance",
        choices=tuple(ORDERS),
    )  # fmt: skip
    trace: str = key(
        "capped", "how others' ratios shorten advantages' traces: the A2PO paper's, two of the "
        "authors' code, none",
        choices=tuple(traces.TRACES),
    )  # fmt: skip
    clip_schedule: str = key(
        "widening", "the clip by an agent's place; tight: its first value throughout",
        choices=tuple(CLIPS),
    )  # fmt: skip
    others: str = key(
        "clipped", "others' ratios in the loss: clipped (A2PO), or free (HAPPO)",
        choices=tuple(OTHERS),
    )  # fmt: skip
    others_clip: float | None = key(
        None, "how far others' ratios count from 1; null: half of clip", above=0, traced=True
    )
    trace_others: str = key(
        "all", "whose ratios a trace takes in rounds after the first (loop epoch)",
        choices=("all", "preceding"), later=True,
    )  # fmt: skip
    refresh: str = key(
        "turn", "when others' ratios are computed under shared parameters",
        choices=("turn", "step"),
    )  # fmt: skip
    two_stage: bool = key(None, "a step of the critic alone before every step", cell=True)


class Experience(NamedTuple):
    """A trajectory as all turns use it: steps and active [time, env, agent], and the batch."""

    steps: returns.Steps
    active: jax.Array
    batch: Batch


class Turns(NamedTuple):
    """The state that passes from turn to turn.

    ratios [time, env, agent]: of every agent's current policy to the one that played.
    advantages [time, env, agent]: as last estimated for each agent, in units of return.
    stopped [agent]: whether its policy has moved as far as `target_kl` allows.
    """

    actor: Learner
    critic: Learner
    norm: ValueNorm
    ratios: jax.Array
    advantages: jax.Array
    stopped: jax.Array


def update(
    state: TrainState, team_: Team, hp: A2po
) -> tuple[TrainState, dict[str, jax.Array], Episodes]:
    """One iteration: play a trajectory, then update agent after agent; contract as mappo.update."""
    key, collect_key = jax.random.split(state.key)
    device_key = devices.own_key(collect_key, hp)
    runner, trajectory, episodes = rollout.collect(device_key, team_, state, hp)
    arrays = ppo.experience(trajectory, state.value_norm, hp)
    advantages = returns.gae(gae_lambda=hp.gae_lambda, **arrays)
    active = rollout.merge_time(trajectory.transitions.active)
    batch = _batch(state, trajectory, team_, hp)
    experience = Experience(returns.steps(**arrays), active, batch)
    values = rollout.merge_time(trajectory.transitions.value)
    score = jnp.abs(_normalised(advantages, active, hp) / (values + 1e-8)).mean((0, 1))
    score = devices.mean(score, hp)

    def one_round(turns, inputs):
        index, key = inputs
        round_ = places(ORDERS[hp.order](key, score), index, key)
        return take_turns(turns, round_, experience, index, team_, hp)

    turns = Turns(
        state.actor, state.critic, state.value_norm, jnp.ones_like(advantages), advantages,
        jnp.zeros(team_.env.num_agents, bool),
    )  # fmt: skip
    rounds = 1 if hp.loop == "agent" else hp.epochs
    keys = jax.random.split(jax.random.fold_in(collect_key, 1), rounds)
    turns, reports = jax.lax.scan(one_round, turns, (jnp.arange(rounds), keys))
    value_mean = devices.mean((advantages + experience.steps.values).mean(), hp)
    report = means(reports) | {"value_mean": value_mean}
    report |= no_legal_action(trajectory, team_, hp)
    statistics = observed.update(state.observed, trajectory, team_, hp)
    state = TrainState(key, turns.actor, turns.critic, turns.norm, runner, statistics)
    return state, report, devices.total(episodes, hp)


def _batch(state, trajectory, team_, hp) -> Batch:
    """The trajectory in blocks of sequences; advantages and targets are filled in turn by turn."""
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length // hp.minibatches
    placeholder = jnp.zeros_like(rollout.merge_time(trajectory.transitions.value))
    return batches.prepare(
        trajectory._replace(transitions=observed.shown(state.observed, trajectory.transitions)),
        team_,
        placeholder,
        placeholder,
        blocks=batches.block_count(sequences, hp.chunk_length) * hp.minibatches,
        clock=hp.chunk_length,
    )


def take_turns(
    turns: Turns, round_: Place, experience: Experience, index: jax.Array, team_: Team, hp: A2po
):
    """One round: every agent's turn. Returns the turns after it, and the reports of all steps."""
    if hp.trace_others == "preceding":
        retrace = lambda turns: retraced(turns, experience, team_, hp)  # noqa: E731
        turns = jax.lax.cond(index > 0, retrace, lambda turns: turns, turns)

    def one_turn(turns, place):
        return turn(turns, place, experience, team_, hp)

    return jax.lax.scan(one_turn, turns, round_)


def turn(turns: Turns, place: Place, experience: Experience, team_: Team, hp: A2po):
    """One agent's turn: its advantages, its gradient steps, and its new ratios.

    Returns the turns after it, and the reports of its steps.
    """
    agent, batch = place.agent, experience.batch
    independent = team_.actor.scheme.independent
    current = turns.ratios
    if not independent:  # before any update all ratios are 1 already
        anew = lambda: ratios.all_ratios(turns.actor, batch, team_, hp)  # noqa: E731
        current = jax.lax.cond(place.others.any(), anew, lambda: current)
    advantages = corrected(turns.advantages, current, place, experience.steps, hp)
    agent_batch = _agent_batch(experience, advantages, agent, hp)
    one_step = guarded(_step_of(place, team_, hp), hp.target_kl)

    def one_pass(carry, key):
        latest = current
        if hp.refresh == "step" and not independent:
            (actor, *_), _ = carry
            latest = ratios.all_ratios(actor, batch, team_, hp)
        factor = _arrange(agent_batch)(ratios.product(latest, place.others))
        weighted_batch = OTHERS[hp.others](agent_batch, factor, hp)
        parts = batches.minibatches(key, weighted_batch, hp.minibatches)
        return jax.lax.scan(one_step, carry, (parts, ppo.step_keys(key, hp)))

    passes = jax.random.split(place.key, hp.epochs if hp.loop == "agent" else 1)
    start = (turns.actor, turns.critic, turns.norm), turns.stopped[agent]
    (learners, stopped), reports = jax.lax.scan(one_pass, start, passes)
    if independent:
        weights = agent_step.agent_weights(team_.actor, learners[0], agent)
        ratio = ratios.ratios_of(weights, agent_batch, team_, hp)[..., 0]
        current = current.at[..., agent].set(ratio)
    return Turns(*learners, current, advantages, turns.stopped.at[agent].set(stopped)), reports


def corrected(advantages, current, place: Place, steps: returns.Steps, hp: A2po) -> jax.Array:
    """Advantages [time, env, agent], the agent's at turn corrected for others' current ratios."""
    others = place.others if hp.trace_others == "all" else place.earlier
    traced = traces.off_policy(
        jax.tree.map(lambda x: x[..., place.agent], steps),
        ratios.product(current, others.at[place.agent].set(True)),
        gamma=hp.gamma,
        gae_lambda=hp.gae_lambda,
        trace=hp.trace,
    )
    # Where no other agent was updated there is nothing to correct for.
    traced = jnp.where(others.any(), traced, advantages[..., place.agent])
    return advantages.at[..., place.agent].set(traced)


def retraced(turns: Turns, experience: Experience, team_: Team, hp: A2po) -> Turns:
    """All agents' advantages, corrected for all agents' current ratios."""
    current = turns.ratios
    if not team_.actor.scheme.independent:
        current = ratios.all_ratios(turns.actor, experience.batch, team_, hp)
    product = jnp.broadcast_to(current.prod(-1, keepdims=True), current.shape)
    advantages = traces.off_policy(
        experience.steps, product, gamma=hp.gamma, gae_lambda=hp.gae_lambda, trace=hp.trace
    )
    return turns._replace(ratios=current, advantages=advantages)


def _agent_batch(experience: Experience, advantages, agent, hp) -> Batch:
    """The batch of one agent [], its agent axis of 1, with its advantages and targets."""
    batch, steps = experience.batch, experience.steps
    arrange = _arrange(batch)
    names = ("obs", "state", "action", "log_prob", "value", "legal", "active")
    slices = {
        name: jax.lax.dynamic_slice_in_dim(getattr(batch, name), agent, 1, 2) for name in names
    }
    normalised = _normalised(advantages, experience.active, hp)[..., agent]
    return batch._replace(
        **slices,
        actor_carry=jax.lax.dynamic_slice_in_dim(batch.actor_carry, agent, 1, 1),
        critic_carry=jax.lax.dynamic_slice_in_dim(batch.critic_carry, agent, 1, 1),
        advantage=arrange(normalised),
        target=arrange(advantages[..., agent] + steps.values[..., agent]),
    )


def _arrange(batch):
    """[time, env] as one agent's sequences in the batch's blocks."""
    blocks, clock = batch.obs.shape[:2]
    return lambda x: batches.from_time(x[..., None], blocks=blocks, clock=clock)


def _normalised(advantages, active, hp):
    return returns.normalise(advantages, active, lambda x: devices.total(x, hp))


def _step_of(place: Place, team_: Team, hp: A2po):
    """step(learners, (batch, key)) -> (learners, report) of the agent at turn."""
    clip = CLIPS[hp.clip_schedule](hp.clip, place.place.astype(float) + 1, team_.env.num_agents)

    def one_step(learners, inputs):
        agent_batch, key = inputs
        turn_of = agent_batch, place.agent, clip, team_, hp, key
        if hp.two_stage:
            learners = agent_step.critic_step(learners, *turn_of)
        return agent_step.step(learners, *turn_of)

    return one_step
