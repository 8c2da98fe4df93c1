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
               parameters): `turn`, at its beginning, or `step`, before every gradient step, as
               the authors' code does. Where agents are apart both are the same.
two_stage      one step of the critic alone before every step
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn import devices, ppo, returns, rollout, team, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Learner, Team
from lorasa_jax.learn.value_norm import ValueNorm


class Turns(NamedTuple):
    """What goes on from turn to turn.

    ratios [time, env, agent]: of every agent's current policy to the one that played.
    advantages [time, env, agent]: as last estimated for each agent, in units of return.
    """

    actor: Learner
    critic: Learner
    norm: ValueNorm
    ratios: jax.Array
    advantages: jax.Array


def update(
    state: TrainState, team_: Team, hp: Hyperparameters
) -> tuple[TrainState, dict[str, jax.Array], Episodes]:
    """One iteration: play a window, then update agent after agent; contract as mappo.update."""
    key, collect_key = jax.random.split(state.key)
    order_key = jax.random.fold_in(collect_key, 1)
    runner, window, episodes = rollout.collect(
        devices.own_key(collect_key, hp), team_, team_.actor.scheme.weights(state.actor.banks),
        team_.critic.scheme.weights(state.critic.banks), state.runner,
        length=hp.rollout_length, chunk=hp.chunk_length,
    )  # fmt: skip
    steps = ppo.td_errors(window, state.value_norm, hp)
    advantages = returns.traced(steps, None, hp.gamma * hp.gae_lambda, hp.trace)
    active = rollout.merge_time(window.transitions.active)
    sequences = hp.num_envs * hp.rollout_length // hp.chunk_length
    batch = batches.prepare(
        window,
        team_,
        jnp.zeros_like(advantages),
        jnp.zeros_like(advantages),
        blocks=batches.block_count(sequences, hp.chunk_length),
        clock=hp.chunk_length,
    )
    values = rollout.merge_time(window.transitions.value)
    normalised = returns.normalise(advantages, active, lambda x: devices.total(x, hp))
    score = devices.mean(jnp.abs(normalised / (values + 1e-8)).mean((0, 1)), hp)
    turns = Turns(
        state.actor, state.critic, state.value_norm, jnp.ones_like(advantages), advantages
    )
    rounds = 1 if hp.loop == "agent" else hp.epochs

    def one_round(turns, now):
        index, key = now
        agents = ORDERS[hp.order](key, score)
        places = jnp.arange(team_.env.num_agents)

        def one_turn(turns, place):
            return turn(turns, agents, place, index > 0, steps, batch, active, team_, hp)

        return jax.lax.scan(one_turn, turns, places)

    turns, reports = jax.lax.scan(
        one_round, turns, (jnp.arange(rounds), jax.random.split(order_key, rounds))
    )
    reports = jax.tree.map(jnp.mean, reports)
    reports["value_mean"] = devices.mean((advantages + steps.values).mean(), hp)
    state = TrainState(key, turns.actor, turns.critic, turns.norm, runner)
    return state, reports, devices.total(episodes, hp)


def turn(turns: Turns, agents, place, again, steps, batch: Batch, active, team_: Team, hp):
    """The turn of agents[place]: its advantages, its gradient steps, and its new ratios.

    It corrects for the agents before it; `again`, in rounds after the first (loop `epoch`), for
    all others, for by then everyone has moved.
    """
    agent, n = agents[place], team_.env.num_agents
    earlier = jnp.zeros(n, bool).at[agents].set(jnp.arange(n) < place)
    others = (earlier | again) & (jnp.arange(n) != agent)
    ratios = turns.ratios
    if not team_.actor.scheme.agents_are_apart:
        # Whoever comes first needs nobody's.
        ratios = jax.lax.cond(
            others.any(), lambda: all_ratios(turns.actor, batch, team_, hp), lambda: ratios
        )
    own_steps = jax.tree.map(lambda x: x[..., agent], steps)
    traced = returns.traced(
        own_steps,
        _product(ratios, others.at[agent].set(True)),
        hp.gamma * hp.gae_lambda,
        hp.trace,
        gae_lambda=hp.gae_lambda,
    )
    # An agent that nobody precedes has nothing to correct for.
    advantage = jnp.where(others.any(), traced, turns.advantages[..., agent])
    advantages = turns.advantages.at[..., agent].set(advantage)
    normalised = returns.normalise(advantages, active, lambda x: devices.total(x, hp))[..., agent]
    target = advantage + own_steps.values
    clip = CLIPS[hp.clip_schedule](hp.clip, place + 1, n)
    shape = {"blocks": batch.obs.shape[0], "clock": batch.obs.shape[1]}
    arrange = functools.partial(batches.from_time, **shape)
    own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, agent, 1, 2), _per_agent(batch))
    own = batch._replace(**own)._replace(
        actor_carry=jax.lax.dynamic_slice_in_dim(batch.actor_carry, agent, 1, 1),
        critic_carry=jax.lax.dynamic_slice_in_dim(batch.critic_carry, agent, 1, 1),
        target=arrange(target[..., None]),
    )
    moments = devices.mean((target.mean(), jnp.square(target).mean()), hp)
    acted = devices.total(active[..., agent].sum().astype(float), hp)

    def one_step(carry, _):
        actor, critic, norm = carry
        now = ratios
        if hp.refresh == "step" and not team_.actor.scheme.agents_are_apart:
            now = all_ratios(actor, batch, team_, hp)
        factor = OTHERS[hp.others](_product(now, others), hp.others_clip)
        mine = OTHERS_INTO[hp.others](
            own, arrange(factor[..., None]), arrange(normalised[..., None])
        )
        if hp.two_stage:
            _, critic, norm, _ = step(actor, critic, norm, agent, mine, moments, acted, clip,
                                      team_, hp, actor_too=False)  # fmt: skip
        actor, critic, norm, report = step(
            actor, critic, norm, agent, mine, moments, acted, clip, team_, hp
        )
        return (actor, critic, norm), report

    count = hp.epochs if hp.loop == "agent" else 1
    (actor, critic, norm), reports = jax.lax.scan(
        one_step, (turns.actor, turns.critic, turns.norm), length=count
    )
    if team_.actor.scheme.agents_are_apart:
        weights = _agent_weights(team_.actor, actor, agent)
        ratios = ratios.at[..., agent].set(ratio_of(weights, own, team_, hp)[..., 0])
    return Turns(actor, critic, norm, ratios, advantages), reports


def step(
    actor, critic, norm, agent, own: Batch, moments, acted, clip, team_: Team, hp, actor_too=True
):
    """One gradient step of an agent [] on its own samples, summed over their blocks."""
    moved = value_norm.update(norm, *moments)
    here = jnp.arange(team_.env.num_agents) == agent
    norm = jax.tree.map(lambda new, old: jnp.where(here, new, old), moved, norm)
    own_norm = jax.tree.map(lambda x: x[agent][None], norm)
    samples = float(hp.devices * own.target.size)
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
        weights, (trained_actor, trained_critic), own_norm, own, team_, hp, clip
    )
    actor_norm = jnp.zeros(())
    if actor_too:
        actor, actor_norm = team.step_agent(team_.actor, actor, actor_gradient, agent, acted)
    critic, critic_norm = team.step_agent(
        team_.critic, critic, critic_gradient, agent, jnp.asarray(samples)
    )
    report = ppo.report(sums, jnp.maximum(acted, 1.0), samples, actor_norm, critic_norm)
    return actor, critic, norm, report


def all_ratios(actor: Learner, batch: Batch, team_: Team, hp) -> jax.Array:
    """Every agent's current ratio [time, env, agent] to the policy that played."""
    return ratio_of(team_.actor.scheme.weights(actor.banks), batch, team_, hp)


def ratio_of(weights, batch: Batch, team_: Team, hp) -> jax.Array:
    """Ratios [time, env, agent] of policies with these weights, one number an action."""

    def block_ratio(block):
        log_prob, _ = ppo.log_probs(weights, block, team_)
        return AGGREGATIONS[hp.others](log_prob - block.log_prob)

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


def _per_agent(batch: Batch) -> dict[str, jax.Array]:
    """The batch's arrays that have agents on their third axis."""
    names = ("obs", "state", "action", "log_prob", "value", "legal", "active")
    return {name: getattr(batch, name) for name in names}


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

# How a ratio per action dimension [..., dimension] becomes one number for the others.
AGGREGATIONS = {
    "clipped": lambda change: jnp.exp(change).mean(-1),
    "free": lambda change: jnp.exp(change.sum(-1)),
}

OTHERS = {
    "clipped": lambda product, clip: jnp.clip(product, 1.0 - clip, 1.0 + clip),
    "free": lambda product, clip: product,
}

# Where the others' factor enters the loss: inside the own clip, or with the advantage.
OTHERS_INTO = {
    "clipped": lambda own, factor, advantage: own._replace(others=factor, advantage=advantage),
    "free": lambda own, factor, advantage: own._replace(advantage=factor * advantage),
}
