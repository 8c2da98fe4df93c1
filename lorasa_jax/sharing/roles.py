"""Whose adapter an agent uses: its own, that of its type, or that of its cluster.

Types are told by the environment (`envs.types.Environment`). Where they are the same in every
episode, agents of a type use one entry of the bank of adapters, as agents of a cluster do. Where
teams are redrawn, the scheme's entries are the types' instead of the agents', and the entry that
an agent uses comes with the episode (`learn.team.forward`).
"""

from dataclasses import dataclass
from typing import Any

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.sharing.clustering import renumbered


@dataclass(frozen=True)
class RoleKeys:
    """Whose adapters are the same."""

    by: str = key(
        "agent", "an adapter for each agent, for each type of agent that the environment tells, or "
        "for each cluster",
        choices=("agent", "type", "cluster"), later=True,
    )  # fmt: skip


def owners(
    by: str, env: Any, name: str, clusters: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The number of the adapter of every agent [agent]; None: each has its own.

    Types that the environment tells anew in every episode are not for here, see `redrawn`.

    Raises:
      ConfigError: there are no types, or no clusters.
    """
    if by == "type":
        if not getattr(env, "types", None):
            raise ConfigError(
                f"sharing.by=type needs an environment that tells agents' types, such as the maps "
                f"of SMAX and SMAC, and env={name} tells none; choose agent."
            )
        return renumbered(env.type_of) if hasattr(env, "type_of") else None
    if by == "cluster" and clusters is None:
        raise ConfigError(
            "sharing.by=cluster needs clusters of agents, which sharing=seps_lora has; choose that "
            "one, or sharing.by=agent."
        )
    return clusters if by == "cluster" else None


def redrawn(by: str, env: Any) -> bool:
    """Whether the adapter that an agent uses comes with the episode."""
    return by == "type" and not hasattr(env, "type_of")
