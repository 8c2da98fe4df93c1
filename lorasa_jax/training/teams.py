"""From a configuration to teams: of every phase the schemes, networks and optimisers."""

from typing import Any

import jax

from lorasa_jax import envs, sharing
from lorasa_jax.config import Config
from lorasa_jax.envs.types import Discrete
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import team
from lorasa_jax.learn.a2po import A2po
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.training.numbers import with_numbers


def build_teams(
    config: Config,
    clusters: tuple[int, ...] | None = None,
    *,
    independent: bool = False,
    env: Any = None,
) -> tuple[Team, ...]:
    """The team of every phase: one environment, and a scheme for actor and critic a phase.

    clusters: the group of every agent, where the way of sharing needs groups. independent: every
    agent has networks of its own instead, whatever the configuration says. env: the environment,
    where it has been made already.
    """
    env = envs.make(**config.env) if env is None else env
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
            clusters,
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


def tuned(config: Config, team_: Team, numbers: dict[str, jax.Array]) -> tuple[Team, ...]:
    """The teams of all phases with other numbers [], which may be traced; see `numbers`."""
    return build_teams(with_numbers(config, numbers), team_.clusters, env=team_.env)
