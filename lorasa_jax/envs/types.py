"""What an environment is: the protocol, its time step, its action spaces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import chex
import numpy as np


@dataclass(frozen=True)
class Discrete:
    """One of `n` actions, the same number for every agent; `TimeStep.legal` masks the rest."""

    n: int


@dataclass(frozen=True)
class Box:
    """`size` numbers in [-1, 1], the same for every agent; `TimeStep.legal` masks padding."""

    size: int


class TimeStep(NamedTuple):
    """What all agents see and receive after a reset or a step.

    obs [agent, observation_size] and state [agent, state_size] are floats; the state is the
    critic's view. reward [] is shared by the team. terminated [] means that the task ended,
    truncated [] that only its clock did. active [agent] is False for agents that no longer act.
    legal [agent, n or size] marks actions that may be chosen, or action dimensions that exist.
    """

    obs: chex.Array
    state: chex.Array
    reward: chex.Array
    terminated: chex.Array
    truncated: chex.Array
    active: chex.Array
    legal: chex.Array
    info: dict[str, chex.Array]


class Environment(Protocol):
    """A cooperative task for `num_agents` agents, one instance; `jax.vmap` makes many.

    `step` does not reset by itself. An episode lasts `max_steps` at most; evaluation ends it there
    whatever its last time step says. An active agent has one legal action at least.
    Agents that see less than others have their observations padded to `observation_size`.

    What more an environment may have: `truncates_early = False` says that no episode is truncated
    before it has lasted `max_steps`, so that training keeps room for the last observations of
    ceil(length / max_steps) truncated episodes of `length` steps, instead of one a step;
    `info["won"]` [] bool at an episode's end makes runs report win rates;
    `film(states, path)` and `replay(states, rewards, path, *, title)` make
    `evaluate render=true` and reports show an episode, states [time + 1, ...] being its own; a
    film that takes `rewards` and `title` too can show them;
    `engine`, a word, is kept in summaries; `alike`, such as {"state": 113}, says that the
    first 113 features of the state are the same for all agents, which makes updates faster; all
    others, such as one-hot identities, must have one mean and one variance for all agents.
    `types`, the names of the kinds of agents that there are, lets adapters be keyed by them
    (sharing.by=type): with `type_of`, every agent's number among them, where it is the same in all
    episodes, or else `types_of(state)` -> [agent] integers, which stay as they are for an episode.
    Without a cell of the paper it takes Ant 4x2's optimisation and 25 environments for 12M steps.
    """

    num_agents: int
    agents: tuple[str, ...]
    observation_size: int
    state_size: int
    max_steps: int
    action_space: Discrete | Box

    def reset(self, key: chex.PRNGKey) -> tuple[Any, TimeStep]: ...

    def step(self, key: chex.PRNGKey, state: Any, actions: chex.Array) -> tuple[Any, TimeStep]: ...


class Pictured(Environment, Protocol):
    """An environment whose episodes can be shown, see Environment."""

    def film(self, states: Any, path: Path) -> Path: ...

    def replay(self, states: Any, rewards: np.ndarray, path: Path, *, title: str) -> Path: ...
