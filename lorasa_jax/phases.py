"""From a configuration to teams, and from a team to compiled code: one compilation a phase."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import envs, evaluate
from lorasa_jax.config import Config
from lorasa_jax.envs.types import Discrete
from lorasa_jax.learn import mappo, rollout, team, value_norm
from lorasa_jax.learn.mappo import TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy import sharing
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.lora import LoraSpec
from lorasa_jax.policy.networks import RecurrentNetwork, parameters

NEVER = np.iinfo(np.int32).max


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

    advance(progress, n) runs n updates and consumes its progress; play(banks, update) evaluates.
    """

    name: str
    end: int
    advance: Callable
    play: Callable


def build_teams(config: Config) -> tuple[Team, ...]:
    """The team of every phase: one environment, one critic, one actor scheme a phase."""
    options = dict(config.env)
    env = envs.make(options.pop("name"), **options)
    if isinstance(env.action_space, Discrete):
        distribution = Categorical(env.action_space.n)
    else:
        distribution = SquashedGaussian(env.action_space.size, config.network.log_std)
    shared, spec = config.sharing, None
    if "rank" in shared:
        spec = LoraSpec(shared["rank"], shared["alpha"], tuple(shared["targets"]))
    schemes = sharing.TABLE[shared["name"]](env.num_agents, spec)
    hidden, algo = config.network.hidden, config.algo
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, hidden)
    critic = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, hidden)
    actor_optimiser = team.adam(algo.actor_lr, algo.max_grad_norm)
    critic_optimiser = team.adam(algo.critic_lr, algo.max_grad_norm)
    critic_role = Role(critic, schemes.critic, critic_optimiser, env.state_size)
    return tuple(
        Team(
            env,
            distribution,
            Role(actor, scheme, actor_optimiser, env.observation_size),
            critic_role,
        )
        for scheme in schemes.actor_phases
    )


def hyperparameters(config: Config) -> mappo.Hyperparameters:
    names = mappo.Hyperparameters._fields
    return mappo.Hyperparameters(**{name: getattr(config.algo, name) for name in names})


def start(seed: jax.Array, team_: Team, hp: mappo.Hyperparameters) -> TrainState:
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
    )


def begin(config: Config, team_: Team) -> Progress:
    """The progress of all seeds at update 0 of the first phase."""
    hp = hyperparameters(config)

    def one(seed):
        state = start(seed, team_, hp)
        _, report, _ = jax.eval_shape(lambda state: mappo.update(state, team_, hp), state)
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


def switch(config: Config, team_: Team, phase: int, progress: Progress) -> Progress:
    """Into phase number `phase`: its scheme adopts the actor's weights, its optimisers are fresh.

    Critic, its optimiser, value statistics, environments, recurrent states and key go on.
    """

    def one(progress):
        state = progress.state
        key = jax.random.fold_in(state.key, phase)
        banks = team_.actor.scheme.adopt(key, state.actor.banks)
        return progress._replace(state=state._replace(actor=team.start(team_.actor, banks)))

    return over_seeds(one, config.num_seeds)(progress)


def advance(progress: Progress, n: jax.Array, team_: Team, hp) -> Progress:
    """Runs n updates of one seed; n is traced, so that every chunk length is one compilation."""

    def body(_, progress):
        state, report, episodes = mappo.update(progress.state, team_, hp)
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
    def single(first, *rest):
        result = function(jax.tree.map(lambda x: x[0], first), *rest)
        return jax.tree.map(lambda x: x[None], result)

    return single


def compile_phase(config: Config, index: int, team_: Team, progress: Progress) -> Phase:
    """Compiles a phase's chunk and its evaluation ahead of time, so that neither can recompile."""
    hp, seeds = hyperparameters(config), config.num_seeds
    names = ("pretrain", "finetune") if len(config.phase_ends) > 1 else ("train",)

    def play(banks_and_seed, update):
        banks, seed = banks_and_seed
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), update)
        weights = team_.actor.scheme.weights(banks)
        return evaluate.play(key, team_, weights, episodes=config.eval_episodes)

    def run(progress, n):
        return advance(progress, n, team_, hp)

    n = jnp.zeros((), jnp.int32)
    seed_array = jnp.array(config.seeds, jnp.uint32)
    banks = progress.state.actor.banks
    compiled_run = jax.jit(over_seeds(run, seeds, in_axes=(0, None)), donate_argnums=0)
    compiled_run = compiled_run.lower(progress, n).compile()
    compiled_play = jax.jit(over_seeds(play, seeds, in_axes=(0, None)))
    compiled_play = compiled_play.lower((banks, seed_array), n).compile()
    return Phase(
        names[index],
        config.phase_ends[index],
        compiled_run,
        lambda banks, update: compiled_play((banks, seed_array), update),
    )
