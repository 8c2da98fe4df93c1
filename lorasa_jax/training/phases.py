"""A run's whole state and what it goes through, as pure functions: begin, switch, advance, play."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.config import Config
from lorasa_jax.envs.normalise import nothing_seen, showing
from lorasa_jax.learn import devices, mappo, rollout, team, value_norm
from lorasa_jax.learn import play as playing
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Team
from lorasa_jax.policy.networks import parameters
from lorasa_jax.sharing.scheme import When
from lorasa_jax.training import measure_names
from lorasa_jax.training.numbers import UPDATES, Lanes, lanes_of, over_lanes, with_numbers
from lorasa_jax.training.teams import tuned

NEVER = np.iinfo(np.int32).max
BETWEEN = 1 << 20  # what is folded into a state's key between updates; the switch folds in a phase
# What newer watched quantities are set to where a checkpoint lacks them.
LATER = {"sums": np.nan, "first_bad": NEVER}


class Progress(NamedTuple):
    """A run's whole state; every leaf has a leading seed axis outside compiled code.

    sums: reports and episodes since the last evaluation. first_bad: for every watched quantity
    the first update at which it was not finite.
    """

    state: TrainState
    update: jax.Array
    sums: dict[str, jax.Array]
    episodes: Episodes
    first_bad: dict[str, jax.Array]


def start(seed: jax.Array, team_: Team, hp: Hyperparameters) -> TrainState:
    """A fresh team, optimisers and environments from a seed []."""
    return start_from(jax.random.key(seed), team_, hp)


def start_from(key: jax.Array, team_: Team, hp: Hyperparameters) -> TrainState:
    """As `start`, from a key []."""
    key, actor_key, critic_key, env_key = jax.random.split(key, 4)

    def learner(role, key):
        banks = role.scheme.init(key, lambda key: parameters(role.network, key, role.features))
        return team.start(role, banks)

    return TrainState(
        key,
        learner(team_.actor, actor_key),
        learner(team_.critic, critic_key),
        value_norm.init(team_.env.num_agents),
        rollout.start(env_key, team_, hp.num_envs),
        nothing_seen(team_.env) if hasattr(team_.env, "normalise") else None,
    )


def begin(config: Config, team_: Team, lanes: Lanes | None = None) -> Progress:
    """The progress of all lanes, by default all seeds, at update 0 of the first phase."""

    def one(lane):
        first = tuned(config, team_, lane.numbers)[0]
        return begin_one(config, first, jax.random.key(lane.seeds))

    # One after the other: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
    return jax.lax.map(one, lanes_of([config]) if lanes is None else lanes)


def begin_one(config: Config, team_: Team, key: jax.Array) -> Progress:
    """The progress at update 0 of a run [no lane axis] from a key []."""
    state = start_from(key, team_, config.algo_of(0))
    return _unwatched(state, reported(config, 0, team_, state))


def watched(names: Iterable[str]) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """What `Progress` keeps of reports of these names, before the first: sums and first_bad."""
    sums = {name: jnp.zeros(()) for name in (*names, "updates")}
    names = (*names, "actor parameters", "critic parameters")
    return sums, {name: jnp.full((), NEVER, jnp.int32) for name in names}


def reported(config: Config, phase: int, team_: Team, state: TrainState) -> tuple[str, ...]:
    """Names of what a phase's updates report."""
    trace = functools.partial(first_update, config, phase, team_)
    return measure_names.names(config, phase, team_, lambda: jax.eval_shape(trace, state)[1])


def first_update(config: Config, phase: int, team_: Team, state: TrainState):
    """State and report after a phase's first update, for their shapes."""
    when = When(jnp.ones((), jnp.int32), 1)
    return learned(state, team_, config.algo_of(phase), update_of(config.algo), when)[:2]


def switch(
    config: Config,
    teams: tuple[Team, ...],
    phase: int,
    progress: Progress,
    lanes: Lanes | None = None,
) -> Progress:
    """Into phase `phase`: its scheme adopts the actor's weights; optimisers are fresh or kept.

    Critic, its optimiser, value statistics, environments, recurrent states and key go on; only a
    critic that changes its scheme too is adopted like the actor.
    """

    lanes = lanes_of([config]) if lanes is None else lanes

    def one(progress, lane):
        return entered(config, tuned(config, teams[0], lane.numbers), phase, progress)

    return over_lanes(one)(progress, lanes)


def entered(config: Config, teams: tuple[Team, ...], phase: int, progress: Progress) -> Progress:
    """One run's progress [no lane axis] at the beginning of phase number `phase`."""
    keeps = config.keeps_optimisers(phase)
    progress = progress._replace(state=adopted(teams, phase, progress.state, keeps=keeps))
    if not (
        measure_names.reports_more(teams[phase - 1]) or measure_names.reports_more(teams[phase])
    ):
        return progress
    sums, first_bad = watched(reported(config, phase, teams[phase], progress.state))
    kept = lambda new, old: {name: old.get(name, x) for name, x in new.items()}  # noqa: E731
    return progress._replace(
        sums=kept(sums, progress.sums), first_bad=kept(first_bad, progress.first_bad)
    )


def adopted(
    teams: tuple[Team, ...], phase: int, state: TrainState, *, keeps: bool = False
) -> TrainState:
    """One seed's state at the beginning of phase number `phase`, from the end of the one before.

    keeps: banks that were trained before find their optimisers' states again.
    """
    previous, current = teams[phase - 1], teams[phase]
    key = jax.random.fold_in(state.key, phase)
    actor = _learner(current.actor, key, state.actor, keeps)
    critic = state.critic
    if current.critic.scheme is not previous.critic.scheme:
        critic = _learner(current.critic, jax.random.fold_in(key, 1), critic, keeps)
    return state._replace(actor=actor, critic=critic)


def _learner(role, key, learner, keeps):
    """A learner under a role's scheme; optimisers' states of banks that rest are kept in it too."""
    new = team.start(role, role.scheme.adopt(key, learner.banks))
    return new._replace(opt_state={**new.opt_state, **learner.opt_state}) if keeps else new


def until(
    config: Config, teams: tuple[Team, ...], index: int, names: Iterable[str] | None = None
) -> Progress:
    """Progress as it is at the beginning of phase `index`; for its shapes.

    names: of what updates have reported there, by default of what they report now.
    """

    def one(lane):
        state = start_from(jax.random.key(lane.seeds), teams[0], config.algo_of(0))
        for phase in range(1, index + 1):
            state = adopted(teams, phase, state, keeps=config.keeps_optimisers(phase))
        kept = reported(config, index, teams[index], state) if names is None else names
        return _unwatched(state, kept)

    return jax.lax.map(one, lanes_of([config]))


def _unwatched(state, names):
    """The progress of a state that no update has reported of."""
    sums, first_bad = watched(names)
    zero = jnp.zeros(())
    return Progress(state, jnp.zeros((), jnp.int32), sums, Episodes(zero, zero, zero), first_bad)


def lr_scale(config: Config, updates: Any = None) -> Callable | None:
    """What learning rates are multiplied by at an update [] of the run; None where they stay.

    linear: one at the first update of the run, zero at its last, whatever phases it has. updates:
    how many the run has, by default as configured; may be traced.
    """
    if config.algo.lr_decay == "none":
        return None
    last = jnp.maximum(jnp.float32(config.num_updates if updates is None else updates) - 1.0, 1.0)
    return lambda update: 1.0 - jnp.asarray(update).astype(jnp.float32) / last


def learned(state: TrainState, team_: Team, hp, update_, when: When):
    """One update, and what the schemes do after it: state, report, and episodes that ended."""
    state, report, episodes = update_(state, team_, hp)
    key = jax.random.fold_in(state.key, BETWEEN)
    actor, actor_measures = team.after_update(team_.actor, state.actor, report, when, key)
    critic, critic_measures = team.after_update(team_.critic, state.critic, report, when, key)
    report = report | team.named(actor_measures, critic_measures)
    return state._replace(actor=actor, critic=critic), report, episodes


def advance(
    progress: Progress, n: jax.Array, team_: Team, hp, update_=mappo.update, scale=None,
    span: tuple[int, int] = (0, NEVER),
) -> Progress:  # fmt: skip
    """Runs n updates of one seed; n is traced, so that every chunk length is one compilation.

    scale(update []): what learning rates are multiplied by, if anything. span: the updates after
    which the phase begins and ends.
    """
    first, last = span

    def body(_, progress):
        current_hp = hp if scale is None else hp.replace(lr_scale=scale(progress.update))
        update = progress.update + 1
        when = When(jnp.maximum(update - first, 0), last - first)
        state, report, episodes = learned(progress.state, team_, current_hp, update_, when)
        watched = {
            **report,
            "actor parameters": _size(state.actor.banks),
            "critic parameters": _size(state.critic.banks),
        }
        first_bad = {
            name: jnp.where(jnp.isfinite(watched[name]), first, jnp.minimum(first, update))
            for name, first in progress.first_bad.items()
        }
        return Progress(
            state,
            update,
            jax.tree.map(jnp.add, progress.sums, {**report, "updates": 1.0}),
            jax.tree.map(jnp.add, progress.episodes, episodes),
            first_bad,
        )

    return jax.lax.fori_loop(0, n, body, progress)


def _size(tree):
    return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree))


def finished(progress: Progress, team_: Team):
    """The policy that is evaluated: the actor's banks, and observation statistics, if any."""
    return team_.actor.scheme.served(progress.state.actor.banks), progress.state.observed


def evaluated(config: Config, team_: Team, policy: Any, key: jax.Array, update: jax.Array):
    """Greedy episodes of a finished policy (see `finished`) of the run with this key []."""
    banks, statistics = policy
    play_key = jax.random.fold_in(jax.random.fold_in(key, 1), update)
    weights = team_.actor.scheme.weights(banks)
    team_ = team_._replace(env=showing(team_.env, statistics))
    return playing.play(play_key, team_, weights, episodes=config.eval_episodes)


def trained(config: Config, index: int, team_: Team, numbers, progress: Progress, n: jax.Array):
    """n updates of phase number `index` by a tuned team, with the numbers that it is tuned to."""
    hp = with_numbers(config, numbers).algo_of(index)
    scale = lr_scale(config, numbers.get(UPDATES))
    hp = devices.share(hp, config.devices, config.num_seeds)
    span = (0, *config.phase_ends)[index], config.phase_ends[index]
    if not measure_names.reports_more(team_):
        span = 0, NEVER  # what nobody needs is no constant
    return advance(progress, n, team_, hp, update_of(config.algo), scale, span)
