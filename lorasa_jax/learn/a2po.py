"""Agent-by-agent policy optimisation: A2PO (Wang et al. 2023) and HAPPO, for any sharing scheme.

Agents take turns. Whoever comes later corrects for what the earlier ones changed: in the loss by
the product of their probability ratios, and, under A2PO, in the advantages by traces that those
ratios shorten. The numbers that tell the forms apart (`Hyperparameters`):

loop           `agent`: a turn is `epochs` steps of one agent, agents once each (MuJoCo);
               `epoch`: a turn is one step, agents `epochs` times each (SMAX)
order          `semi_greedy` (the highest score and a random one by turns), `random`, `fixed`
trace          rows of returns.TRACES; `capped` is A2PO's, `none` HAPPO's
clip_schedule  `widening`: clip (0.5 + 0.5 k / n) for the k-th agent; `tight`: its value for k = 1
               throughout (what the authors' code does on SMAC); `constant`
others         `clipped`: others' mean ratio over action dimensions, their product clipped to
               1 +- others_clip, inside the own ratio's clip (A2PO); `free`: their joint ratio,
               unclipped, times the advantage (HAPPO)
refresh        when others' ratios are computed where training one agent moves others (shared
               parameters): `turn`, at its beginning, or `step`, before every pass over the
               trajectory, as the authors' code does. Where agents are apart both are the same.
trace_others   whose ratios a trace takes in rounds after the first (loop `epoch`): `all` others,
               who have all moved by then; `preceding`: those before it in the round, after all
               traces were taken anew at its beginning, as the authors' code does
two_stage      one step of the critic alone before every step
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import devices, observed, ppo, returns, rollout, team, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Learner, Team
from lorasa_jax.learn.value_norm import ValueNorm


class Experience(NamedTuple):
    """A trajectory as all turns use it: steps and active [time, env, agent], and the batch."""

    steps: returns.Steps
    active: jax.Array
    batch: Batch


class Turns(NamedTuple):
    """What goes on from turn to turn.

    ratios [time, env, agent]: of every agent's current policy to the one that played.
    advantages [time, env, agent]: as last estimated for each agent, in units of return.
    stopped [agent]: whose policy has moved as far as `target_kl` lets it.
    """

    actor: Learner
    critic: Learner
    norm: ValueNorm
    ratios: jax.Array
    advantages: jax.Array
    stopped: jax.Array


class Place(NamedTuple):
    """Whose turn it is: agent [], its place [] in the round from 0 on, the turn's key.

    earlier [agent]: those before it in the round; others [agent]: those that have moved since the
    trajectory was played, itself left out.
    """

    agent: jax.Array
    place: jax.Array
    key: jax.Array
    earlier: jax.Array
    others: jax.Array


def update(
    state: TrainState, team_: Team, hp: Hyperparameters
) -> tuple[TrainState, dict[str, jax.Array], Episodes]:
    """One iteration: play a trajectory, then update agent after agent; contract as mappo.update."""
    key, collect_key = jax.random.split(state.key)
    runner, trajectory, episodes = rollout.collect(
        devices.own_key(collect_key, hp), team_, team_.actor.scheme.weights(state.actor.banks),
        team_.critic.scheme.weights(state.critic.banks), state.runner, state.observed,
        length=hp.rollout_length, chunk=hp.chunk_length,
    )  # fmt: skip
    arrays = ppo.experience(trajectory, state.value_norm, hp)
    advantages = returns.gae(gae_lambda=hp.gae_lambda, **arrays)
    active = rollout.merge_time(trajectory.transitions.active)
    values = rollout.merge_time(trajectory.transitions.value)
    score = devices.mean(
        jnp.abs(_normalised(advantages, active, hp) / (values + 1e-8)).mean((0, 1)), hp
    )
    experience = Experience(returns.steps(**arrays), active, _batch(state, trajectory, team_, hp))
    turns = Turns(
        state.actor, state.critic, state.value_norm, jnp.ones_like(advantages), advantages,
        jnp.zeros(team_.env.num_agents, bool),
    )  # fmt: skip

    def one_round(turns, now):
        index, key = now
        agents = ORDERS[hp.order](key, score)
        if hp.trace_others == "preceding":
            turns = jax.lax.cond(
                index > 0, lambda turns: retraced(turns, experience, team_, hp), lambda x: x, turns
            )

        def one_turn(turns, place):
            who = _at(agents, place, index, jax.random.fold_in(key, place))
            return turn(turns, who, experience, team_, hp)

        return jax.lax.scan(one_turn, turns, jnp.arange(team_.env.num_agents))

    rounds = 1 if hp.loop == "agent" else hp.epochs
    keys = jax.random.split(jax.random.fold_in(collect_key, 1), rounds)
    turns, reports = jax.lax.scan(one_round, turns, (jnp.arange(rounds), keys))
    report = ppo.means(reports)
    report["value_mean"] = devices.mean((advantages + experience.steps.values).mean(), hp)
    seen = observed.update(state.observed, trajectory, team_, hp)
    state = TrainState(key, turns.actor, turns.critic, turns.norm, runner, seen)
    return state, report, devices.total(episodes, hp)


def _batch(state, trajectory, team_, hp) -> Batch:
    """The trajectory in blocks of sequences; advantages and targets are filled in turn by turn."""
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length // hp.minibatches
    later = jnp.zeros_like(rollout.merge_time(trajectory.transitions.value))
    return batches.prepare(
        trajectory._replace(transitions=observed.shown(state.observed, trajectory.transitions)),
        team_,
        later,
        later,
        blocks=batches.block_count(sequences, hp.chunk_length) * hp.minibatches,
        clock=hp.chunk_length,
    )


def _at(agents, place, index, key) -> Place:
    """The turn at a place of a round's order `agents` [place]; index: the round's number."""
    agent, n = agents[place], agents.shape[0]
    earlier = jnp.zeros(n, bool).at[agents].set(jnp.arange(n) < place)
    others = (earlier | (index > 0)) & (jnp.arange(n) != agent)
    return Place(agent, place, key, earlier, others)


def turn(turns: Turns, who: Place, experience: Experience, team_: Team, hp: Hyperparameters):
    """One agent's turn: its advantages, its gradient steps, and its new ratios.

    Returns the turns after it, and the reports of its steps.
    """
    agent, apart = who.agent, team_.actor.scheme.independent
    ratios = turns.ratios
    if not apart:  # the first agent's correction includes nobody
        ratios = jax.lax.cond(
            who.others.any(),
            lambda: all_ratios(turns.actor, experience.batch, team_, hp),
            lambda: ratios,
        )
    advantages = corrected(turns.advantages, ratios, who, experience.steps, hp)
    own = _own(experience, advantages, agent, hp)
    clip = CLIPS[hp.clip_schedule](hp.clip, who.place + 1, team_.env.num_agents)

    def one_step(learners, part):
        if hp.two_stage:
            learners, _ = step(learners, part, agent, clip, team_, hp, actor_too=False)
        return step(learners, part, agent, clip, team_, hp)

    one_step = ppo.guarded(one_step, hp.target_kl)

    def one_pass(carry, key):
        now = ratios
        if hp.refresh == "step" and not apart:
            now = all_ratios(carry[0][0], experience.batch, team_, hp)
        mine = _with_others(own, _product(now, who.others), hp)
        return jax.lax.scan(one_step, carry, batches.minibatches(key, mine, hp.minibatches))

    learners = turns.actor, turns.critic, turns.norm
    (learners, stopped), reports = jax.lax.scan(
        one_pass,
        (learners, turns.stopped[agent]),
        jax.random.split(who.key, hp.epochs if hp.loop == "agent" else 1),
    )
    if apart:
        weights = _agent_weights(team_.actor, learners[0], agent)
        ratios = ratios.at[..., agent].set(ratio_of(weights, own, team_, hp)[..., 0])
    return Turns(*learners, ratios, advantages, turns.stopped.at[agent].set(stopped)), reports


def corrected(advantages, ratios, who: Place, steps: returns.Steps, hp) -> jax.Array:
    """Advantages [time, env, agent] with those of the agent at turn corrected for others' moves."""
    others = who.others if hp.trace_others == "all" else who.earlier
    found = returns.off_policy(
        jax.tree.map(lambda x: x[..., who.agent], steps),
        _product(ratios, others.at[who.agent].set(True)),
        gamma=hp.gamma,
        gae_lambda=hp.gae_lambda,
        trace=hp.trace,
    )
    # Where nobody has moved there is nothing to correct for.
    found = jnp.where(others.any(), found, advantages[..., who.agent])
    return advantages.at[..., who.agent].set(found)


def retraced(turns: Turns, experience: Experience, team_: Team, hp) -> Turns:
    """All agents' advantages, corrected for the moves of all."""
    ratios = turns.ratios
    if not team_.actor.scheme.independent:
        ratios = all_ratios(turns.actor, experience.batch, team_, hp)
    product = jnp.broadcast_to(ratios.prod(-1, keepdims=True), ratios.shape)
    found = returns.off_policy(
        experience.steps, product, gamma=hp.gamma, gae_lambda=hp.gae_lambda, trace=hp.trace
    )
    return turns._replace(ratios=ratios, advantages=found)


def _own(experience: Experience, advantages, agent, hp) -> Batch:
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


def _with_others(own: Batch, product, hp) -> Batch:
    """An agent's batch with the product [time, env] of the others' ratios in its loss."""
    factor = _arrange(own)(OTHERS[hp.others](product, hp))
    return OTHERS_INTO[hp.others](own, factor)


def _normalised(advantages, active, hp):
    return returns.normalise(advantages, active, lambda x: devices.total(x, hp))


def step(learners, own: Batch, agent, clip, team_: Team, hp: Hyperparameters, actor_too=True):
    """One gradient step of an agent [] on its own samples, summed over their blocks.

    learners: actor, critic and value statistics. Returns them, and a report.
    """
    actor, critic, norm = learners
    moments = devices.mean((own.target.mean(), jnp.square(own.target).mean()), hp)
    moved = value_norm.update(norm, *moments)
    here = jnp.arange(team_.env.num_agents) == agent
    norm = jax.tree.map(lambda new, old: jnp.where(here, new, old), moved, norm)
    trained_actor, frozen_actor = _entries(team_.actor, actor, agent)
    trained_critic, frozen_critic = _entries(team_.critic, critic, agent)
    if not actor_too:
        frozen_actor, trained_actor = {**frozen_actor, **trained_actor}, {}

    def weights(trained):
        actor_entries, critic_entries = trained
        return (
            team_.actor.scheme.agent_weights({**frozen_actor, **actor_entries}),
            team_.critic.scheme.agent_weights({**frozen_critic, **critic_entries}),
        )

    (actor_gradient, critic_gradient), sums = ppo.gradients(
        weights, (trained_actor, trained_critic), jax.tree.map(lambda x: x[agent][None], norm),
        own, team_, hp, clip,
    )  # fmt: skip
    acted = devices.total(own.active.sum().astype(float), hp)
    samples, actor_norm = jnp.float32(hp.devices * own.target.size), jnp.zeros(())
    if actor_too:
        actor, actor_norm = team.step_agent(
            team_.actor, actor, actor_gradient, agent, acted, hp.lr_scale
        )
    critic, critic_norm = team.step_agent(
        team_.critic, critic, critic_gradient, agent, samples, hp.lr_scale
    )
    report = ppo.report(sums, jnp.maximum(acted, 1.0), samples, actor_norm, critic_norm)
    return (actor, critic, norm), report


def all_ratios(actor: Learner, batch: Batch, team_: Team, hp) -> jax.Array:
    """Every agent's current ratio [time, env, agent] to the policy that played."""
    return ratio_of(team_.actor.scheme.weights(actor.banks), batch, team_, hp)


def ratio_of(weights, batch: Batch, team_: Team, hp) -> jax.Array:
    """Ratios [time, env, agent] of policies with these weights, one number an action."""

    def block_ratio(block):
        log_prob, _ = ppo.log_probs(weights, block, team_)
        exists = team_.distribution.dimensions(block.legal)
        return AGGREGATIONS[hp.others](log_prob - block.log_prob, exists)

    ratios = jax.lax.map(block_ratio, batch)
    return batches.to_time(ratios, hp.num_envs)


def _product(ratios, mask):
    """The product [time, env] of the masked agents' ratios."""
    return jnp.prod(jnp.where(mask, ratios, 1.0), axis=-1)


def _entries(role, learner, agent):
    """(trained, frozen) entries of an agent."""
    trained, frozen = team.split(role, learner.banks)
    return role.scheme.entries(trained, agent), role.scheme.entries(frozen, agent)


def _agent_weights(role, learner, agent):
    return role.scheme.agent_weights(role.scheme.entries(learner.banks, agent))


def _semi_greedy(key, score):
    """Agents [place]: by turns the best score that is left, and one of the others at random."""
    n = score.shape[0]

    def choose(left, now):
        place, key = now
        best = jnp.argmax(jnp.where(left, score, -jnp.inf))
        drawn = jax.random.categorical(key, jnp.where(left, 0.0, -jnp.inf))
        agent = jnp.where(place % 2 == 0, best, drawn)
        return left.at[agent].set(False), agent

    places = jnp.arange(n), jax.random.split(key, n)
    return jax.lax.scan(choose, jnp.ones(n, bool), places)[1]


ORDERS = {
    "semi_greedy": _semi_greedy,
    "random": lambda key, score: jax.random.permutation(key, score.shape[0]),
    "fixed": lambda key, score: jnp.arange(score.shape[0]),
}

CLIPS = {
    "widening": lambda clip, k, n: clip * (0.5 + 0.5 * k / n),
    "tight": lambda clip, k, n: clip * (0.5 + 0.5 / n),
    "constant": lambda clip, k, n: clip,
}

# How a ratio per action dimension [..., dimension] becomes one number for the others; `exists`
# leaves out padded dimensions.
AGGREGATIONS = {
    "clipped": lambda change, exists: ppo.mean_over(exists, jnp.exp(change)),
    "free": lambda change, exists: jnp.exp(change.sum(-1)),
}

OTHERS = {
    "clipped": lambda product, hp: jnp.clip(product, *others_range(hp)),
    "free": lambda product, hp: product,
}

# Where the others' factor enters the loss: inside the own clip, or with the advantage.
OTHERS_INTO = {
    "clipped": lambda own, factor: own._replace(others=factor),
    "free": lambda own, factor: own._replace(advantage=factor * own.advantage),
}


def others_range(hp: Hyperparameters) -> tuple[float, float]:
    """What the others' factor is clipped to: 1 +- others_clip, by default half of the own clip."""
    clip = hp.clip / 2 if hp.others_clip is None else hp.others_clip
    return 1.0 - clip, 1.0 + clip
