"""A finished policy: what a run's checkpoint or an export holds for one seed, ready to act."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from lorasa_jax.envs.normalise import Observed, normalised, showing
from lorasa_jax.envs.types import Environment
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.team import Team, forward


@dataclass(frozen=True, eq=False)
class Policy:
    """The policies of all agents of a team, of one seed, after `step` joint environment steps.

    out: the folder that they were read from. team: its environment shows observations as they
    are; critic and optimisers are None of an export. weights: every agent's, adapters merged, and
    their axes (0 where a leaf differs by agent, None where all share it), as a scheme's `weights`
    gives them. statistics: those by which observations are normalised, None where they are not.

    Of a run alone, None of an export: config; banks, the actor's parameters which
    `team.actor.scheme` takes; state(), the whole training state of this seed.
    """

    out: str
    env_name: str
    algo: str
    sharing: str
    phase: str
    seed: int
    step: int
    team: Team
    weights: tuple[Any, Any]
    statistics: Observed | None = None
    config: Any = None
    banks: dict[str, Any] | None = None
    state: Callable[[], Any] | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """All the seeds that its folder holds a policy of."""
        return (self.seed,) if self.config is None else self.config.seeds

    @property
    def seeing_team(self) -> Team:
        """The team in an environment that shows observations as the networks read them."""
        return seeing(self.team, self.statistics)

    def env(self) -> Environment:
        """The environment of training; its observations are what `act` takes, not normalised."""
        return self.team.env

    def at_rank(self, rank: int) -> "Policy":
        """The same policy with adapters of a rank of at most `rank`.

        Raises:
          ConfigError: it is an export, or its adapters have no ranks to choose from.
        """
        scheme = self.team.actor.scheme
        if self.banks is None or scheme is None or scheme.at_rank is None:
            raise ConfigError(
                f"rank={rank} needs a run's adapters that serve at any rank, and {self.out} has "
                "none; give a run with sharing.rank_schedule=dylora or adalora, after its switch."
            )
        banks = scheme.served(self.banks, rank)
        return dataclasses.replace(self, banks=banks, weights=scheme.weights(banks))

    def initial_carry(self, *shape: int) -> jax.Array:
        """Zeros [*shape, agent, carry]: the recurrent state at the start of an episode."""
        return self.team.actor.network.initial_carry(*shape, self.team.env.num_agents)

    def act(self, obs, carry, first, legal=None, types=None) -> tuple[jax.Array, jax.Array]:
        """The next carry, and every agent's best action, as the environment takes it.

        obs [..., agent, features] as `env()` shows them, carry [..., agent, carry]; where first
        [...] is true an episode begins, and the carry is zeroed before the step. legal
        [..., agent, actions] marks the actions that may be chosen, by default all. types
        [..., agent], `env().types_of(state)`, is needed where weights go by types that are redrawn
        (sharing.by=type). Discrete
        actions are [..., agent] integers, continuous ones [..., agent, size] in [-1, 1]. Compiled
        once for a shape; may be called within `jax.jit`.

        Raises:
          ValueError: obs or carry is of another shape, or types are missing.
        """
        obs, carry = jnp.asarray(obs, jnp.float32), jnp.asarray(carry, jnp.float32)
        first, legal = jnp.asarray(first, bool), jnp.asarray(True if legal is None else legal, bool)
        agents = self.team.env.num_agents
        for name, x, size in (
            ("obs", obs, self.team.env.observation_size),
            ("carry", carry, self.team.actor.network.carry_size),
        ):
            if x.shape != (*first.shape, agents, size):
                raise ValueError(
                    f"{name} {list(x.shape)} must be [..., {agents} agents, {size}], "
                    f"with first {list(first.shape)} in front."
                )
        if types is None and self.team.actor.by_type:
            raise ValueError("this policy needs types=env().types_of(state).")
        types = jnp.asarray(types, jnp.int32) if self.team.actor.by_type else None
        return self._act(self.weights[0], self.statistics, obs, carry, first, legal, types)

    @functools.cached_property
    def _act(self):
        team, (_, axes) = self.team, self.weights

        @jax.jit
        def act(tree, statistics, obs, carry, first, legal, types):
            if statistics is not None:
                obs = normalised(statistics.obs, obs)
            carry, outputs = forward(
                team.actor.network, (tree, axes), carry, obs[None], first[None],
                agent_axis=obs.ndim - 1, types=None if types is None else types[None],
            )  # fmt: skip
            outputs = {name: x[0] for name, x in outputs.items()}
            return carry, team.distribution.to_env(team.distribution.mode(outputs, legal))

        return act


def seeing(team: Team, statistics: Observed | None) -> Team:
    """The team in an environment that shows what a policy with these statistics reads."""
    return team._replace(env=showing(team.env, statistics))
