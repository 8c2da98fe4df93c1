"""From a configuration to teams, and from a team to compiled code: one compilation a phase."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import envs, sharing
from lorasa_jax.config import Config
from lorasa_jax.envs.normalise import nothing_seen, showing
from lorasa_jax.envs.types import Discrete
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import devices, mappo, rollout, team, value_norm
from lorasa_jax.learn import play as playing
from lorasa_jax.learn.a2po import A2po
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.policy.networks import parameters

NEVER = np.iinfo(np.int32).max
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


@dataclass(frozen=True)
class Phase:
    """One compiled phase, which ends at update `end`.

    advance(progress, n) runs n updates and consumes its progress; play(progress, update) evaluates.
    """

    name: str
    end: int
    advance: Callable
    play: Callable


def build_teams(
    config: Config, clusters: tuple[int, ...] | None = None, *, independent: bool = False
) -> tuple[Team, ...]:
    """The team of every phase: one environment, and a scheme for actor and critic a phase.

    clusters: the group of every agent, where the way of sharing needs groups. independent: every
    agent has networks of its own instead, whatever the configuration says.
    """
    options = dict(config.env)
    env = envs.make(options.pop("name"), **options)
    if isinstance(env.action_space, Discrete):
        distribution = Categorical(env.action_space.n)
    else:
        distribution = config.network.gaussian(env.action_space.size)
    row = sharing.REGISTRY.row("nps" if independent else config.sharing["name"])
    options = {key: config.sharing.get(key, default) for key, default in row.defaults.items()}
    given = sharing.Given(env.num_agents, config.lora_spec(), clusters, options)
    actor_given, by_type = (given, False) if independent else _keyed(config, env, given)
    actors, critics = row.make(actor_given).actor_phases, row.make(given).critic_phases
    if config.critic_sharing is not None and not independent:
        critics = sharing.REGISTRY.row(config.critic_sharing).make(given).actor_phases
        critics = (*critics, *critics[-1:] * (len(row.phases) - len(critics)))
    if config.sequence is not None and not independent:
        actors, critics = (_sequence(config, pair) for pair in (actors, critics))
    actor, critic = config.network.actor(distribution), config.network.critic()

    def phase_team(phase, actor_scheme, critic_scheme):
        algo = config.algo_of(phase)
        optimisers = [
            _optimiser(config, scheme, lr, algo.max_grad_norm)
            for scheme, lr in ((actor_scheme, algo.actor_lr), (critic_scheme, algo.critic_lr))
        ]
        return Team(
            env,
            distribution,
            Role(actor, actor_scheme, optimisers[0], env.observation_size, by_type),
            Role(critic, critic_scheme, optimisers[1], env.state_size),
        )

    pairs = zip(actors, critics, strict=True)
    return tuple(phase_team(phase, *pair) for phase, pair in enumerate(pairs))


def _keyed(config, env, given):
    """(what actors are built from, whether their agents are types that come with the episode)."""
    by = config.sharing.get("by", "agent")
    owners = sharing.roles.owners(by, env, config.env["name"], given.clusters)
    if not sharing.roles.redrawn(by, env):
        return given._replace(owners=owners), False
    if given.clusters is not None or isinstance(config.algo, A2po):
        raise ConfigError(
            f"sharing.by=type with env={config.env['name']}, whose teams are redrawn, needs "
            "sharing=ps_lora and algo=mappo; choose them, or by=agent."
        )
    return given._replace(num_agents=len(env.types)), True


def _sequence(config, pair):
    """The schemes of the phases of a list, from those of a role's two; one for both stays."""
    if pair[0] is pair[1]:
        return (pair[0],) * len(config.sequence)
    return sharing.sequence.schemes(config.sequence, *pair)


def _optimiser(config, scheme, lr, max_grad_norm):
    """Adam; of a scheme that adapts with B's own learning rate."""
    ratio = config.sharing.get("lr_ratio", 1.0) if scheme.adapts else 1.0
    return team.lora_plus(team.adam(lr, max_grad_norm), ratio)


def hyperparameters(config: Config, phase: int = -1) -> Hyperparameters:
    """The numbers of a phase, by default of the last."""
    return config.algo_of(phase)


def start(seed: jax.Array, team_: Team, hp: Hyperparameters) -> TrainState:
    """A fresh team, optimisers and environments from a seed []."""
    key, actor_key, critic_key, env_key = jax.random.split(jax.random.key(seed), 4)

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


def begin(config: Config, team_: Team) -> Progress:
    """The progress of all seeds at update 0 of the first phase."""
    hp = hyperparameters(config, 0)

    def one(seed):
        state = start(seed, team_, hp)
        update = update_of(config.algo)
        _, report, _ = jax.eval_shape(lambda state: update(state, team_, hp), state)
        zero = jnp.zeros(())
        watched = (*report, "actor parameters", "critic parameters")
        return Progress(
            state,
            jnp.zeros((), jnp.int32),
            {name: zero for name in (*report, "updates")},
            Episodes(zero, zero, zero),
            {name: jnp.full((), NEVER, jnp.int32) for name in watched},
        )

    # Seed after seed: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
    return jax.lax.map(one, jnp.array(config.seeds, jnp.uint32))


def switch(config: Config, teams: tuple[Team, ...], phase: int, progress: Progress) -> Progress:
    """Into phase number `phase`: its scheme adopts the actor's weights, its optimisers are fresh.

    Critic, its optimiser, value statistics, environments, recurrent states and key go on; only a
    critic that changes its scheme too is adopted like the actor.
    """

    def one(progress):
        keeps = config.keeps_optimisers(phase)
        return progress._replace(state=adopted(teams, phase, progress.state, keeps=keeps))

    return over_seeds(one, config.num_seeds)(progress)


def adopted(
    teams: tuple[Team, ...], phase: int, state: TrainState, *, keeps: bool = False
) -> TrainState:
    """One seed's state at the beginning of phase number `phase`, from the end of the one before.

    keeps: banks that were trained before find their optimisers' states again.
    """
    previous, current = teams[phase - 1], teams[phase]
    key = jax.random.fold_in(state.key, phase)
    actor = _entered(current.actor, key, state.actor, keeps)
    critic = state.critic
    if current.critic.scheme is not previous.critic.scheme:
        critic = _entered(current.critic, jax.random.fold_in(key, 1), critic, keeps)
    return state._replace(actor=actor, critic=critic)


def _entered(role, key, learner, keeps):
    """A learner under a role's scheme; optimisers' states of banks that rest are kept in it too."""
    new = team.start(role, role.scheme.adopt(key, learner.banks))
    return new._replace(opt_state={**new.opt_state, **learner.opt_state}) if keeps else new


def until(config: Config, teams: tuple[Team, ...], index: int) -> Progress:
    """Progress as it is at the beginning of phase `index`; for its shapes."""
    progress = begin(config, teams[0])
    for phase in range(1, index + 1):
        progress = switch(config, teams, phase, progress)
    return progress


def lr_scale(config: Config) -> Callable | None:
    """What learning rates are multiplied by at an update [] of the run; None where they stay.

    linear: one at the first update of the run, zero at its last, whatever phases it has.
    """
    if config.algo.lr_decay == "none":
        return None
    return lambda update: 1.0 - update / max(config.num_updates - 1, 1)


def advance(
    progress: Progress, n: jax.Array, team_: Team, hp, update_=mappo.update, scale=None
) -> Progress:
    """Runs n updates of one seed; n is traced, so that every chunk length is one compilation.

    scale(update []): what learning rates are multiplied by, if anything.
    """

    def body(_, progress):
        current_hp = hp if scale is None else hp.replace(lr_scale=scale(progress.update))
        state, report, episodes = update_(progress.state, team_, current_hp)
        update = progress.update + 1
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


def over_seeds(function: Callable, num_seeds: int, **vmap) -> Callable:
    """`function` over a leading seed axis; a single seed runs the unbatched kernels."""
    if num_seeds > 1:
        return functools.wraps(function)(jax.vmap(function, **vmap))

    @functools.wraps(function)
    def single(first, *arguments):
        result = function(jax.tree.map(lambda x: x[0], first), *arguments)
        return jax.tree.map(lambda x: x[None], result)

    return single


def finished(progress: Progress):
    """The finished policy: the actor's banks, and its observation statistics, if any."""
    return progress.state.actor.banks, progress.state.observed


def compile_phase(config: Config, index: int, team_: Team, progress: Progress) -> Phase:
    """Compiles a phase's chunk and its evaluation ahead of time, so that neither can recompile."""
    hp, seeds = hyperparameters(config, index), config.num_seeds

    def play(policy_and_seed, update):
        (banks, statistics), seed = policy_and_seed
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), update)
        weights = team_.actor.scheme.weights(banks)
        team = team_._replace(env=showing(team_.env, statistics))
        return playing.play(key, team, weights, episodes=config.eval_episodes)

    def run(progress, n):
        device_hp = devices.share(hp, config.devices)
        return advance(progress, n, team_, device_hp, update_of(config.algo), lr_scale(config))

    n = jnp.zeros((), jnp.int32)
    seed_array = jnp.array(config.seeds, jnp.uint32)
    policy = finished(progress)
    compiled_run = over_seeds(run, seeds, in_axes=(0, None))
    if config.devices > 1:
        compiled_run = devices.compile_split(compiled_run, progress, n, config.devices)
        policy = jax.device_put(policy, jax.devices()[0])
    else:
        compiled_run = jax.jit(compiled_run, donate_argnums=0).lower(progress, n).compile()
    put = (lambda x: x) if config.devices == 1 else lambda x: jax.device_put(x, jax.devices()[0])
    compiled_play = jax.jit(over_seeds(play, seeds, in_axes=(0, None)))
    compiled_play = compiled_play.lower((policy, seed_array), n).compile()
    return Phase(
        config.phase_names[index],
        config.phase_ends[index],
        compiled_run,
        lambda progress, update: compiled_play((put(finished(progress)), seed_array), update),
    )
