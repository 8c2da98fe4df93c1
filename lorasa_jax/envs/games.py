"""Small tasks with known optima, on which an algorithm or a sharing scheme must succeed.

The single-agent probes test one ability each (Andy Jones' list); the best expected episode return
is `optimum`. The two matrix games are HyperMARL's (Tessera et al. 2025): in one all agents must
differ, in the other all must agree. `random` is what uniformly random actions earn.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.envs.types import Box, Discrete, TimeStep
from lorasa_jax.errors import ConfigError


class GameState(NamedTuple):
    steps: jax.Array
    memory: Any


@dataclass(frozen=True)
class Game:
    """A game of `max_steps` steps in which every step is rewarded from what `memory` holds.

    begin(key) -> memory; observe(memory, steps) -> [agent, features];
    play(key, memory, steps, actions) -> (memory, reward []).
    A game ends by termination: nothing follows its last step.
    """

    num_agents: int
    features: int
    action_space: Discrete | Box
    max_steps: int
    begin: Any
    observe: Any
    play: Any
    optimum: float
    random: float

    truncates_early = False  # it never is

    @property
    def agents(self):
        return tuple(f"agent_{i}" for i in range(self.num_agents))

    @property
    def observation_size(self):
        return self.features

    @property
    def state_size(self):
        return self.features

    def reset(self, key):
        state = GameState(jnp.zeros((), jnp.int32), self.begin(key))
        return state, self._timestep(state, jnp.zeros(()))

    def step(self, key, state, actions):
        memory, reward = self.play(key, state.memory, state.steps, actions)
        state = GameState(state.steps + 1, memory)
        return state, self._timestep(state, reward)

    def _timestep(self, state, reward):
        obs = self.observe(state.memory, state.steps)
        space = self.action_space
        width = space.n if isinstance(space, Discrete) else space.size
        return TimeStep(
            obs=obs,
            state=obs,
            reward=reward,
            terminated=state.steps >= self.max_steps,
            truncated=jnp.zeros((), bool),
            active=jnp.ones(self.num_agents, bool),
            legal=jnp.ones((self.num_agents, width), bool),
            info={},
        )


def _sign(key):
    return jax.random.rademacher(key, (), float)


def _constant_value():
    """Always the same observation, always reward 1."""
    return Game(
        1, 1, Discrete(2), 1,
        begin=lambda key: jnp.zeros(()),
        observe=lambda memory, steps: jnp.ones((1, 1)),
        play=lambda key, memory, steps, actions: (memory, jnp.ones(())),
        optimum=1.0, random=1.0,
    )  # fmt: skip


def _observation_value():
    """The reward is the observation, +1 or -1; actions do nothing."""
    return Game(
        1, 2, Discrete(2), 1,
        begin=_sign,
        observe=lambda memory, steps: jnp.stack([memory, -memory])[None],
        play=lambda key, memory, steps, actions: (memory, memory),
        optimum=0.0, random=0.0,
    )  # fmt: skip


def _action_reward():
    """Discrete: reward 1 for the action that the observation names, else 0."""
    return Game(
        1, 2, Discrete(2), 1,
        begin=_sign,
        observe=lambda memory, steps: jnp.stack([memory, -memory])[None],
        play=lambda key, memory, steps, actions: (
            memory, (actions[0] == (memory > 0).astype(int)).astype(float),
        ),
        optimum=1.0, random=0.5,
    )  # fmt: skip


def _action_reward_continuous():
    """Continuous: reward 1 - (action - 0.5 x observed sign)^2."""
    return Game(
        1, 2, Box(1), 1,
        begin=_sign,
        observe=lambda memory, steps: jnp.stack([memory, -memory])[None],
        play=lambda key, memory, steps, actions: (
            memory, 1.0 - jnp.square(actions[0, 0] - 0.5 * memory),
        ),
        optimum=1.0, random=1.0 - 1 / 3 - 0.25,
    )  # fmt: skip


def _memory(delay=4):
    """A sign is shown at the first step only; the last step's action must name it."""
    return Game(
        1, 3, Discrete(2), delay,
        begin=_sign,
        observe=lambda memory, steps: jnp.where(
            steps == 0, jnp.stack([memory, -memory, 0.0]), jnp.array([0.0, 0.0, 1.0])
        )[None],
        play=lambda key, memory, steps, actions: (
            memory, ((steps == delay - 1) & (actions[0] == (memory > 0).astype(int))).astype(float),
        ),
        optimum=1.0, random=0.5,
    )  # fmt: skip


def _matrix_game(payoff, n, horizon, random):
    """n agents, n actions, `horizon` steps; everyone sees everyone's last actions, one-hot."""

    def play(key, memory, steps, actions):
        chosen = jax.nn.one_hot(actions, n)
        same = chosen.sum(0)[actions]
        return chosen.reshape(-1), payoff(same).mean() / horizon

    return Game(
        n, n * n, Discrete(n), horizon,
        begin=lambda key: -jnp.ones(n * n),
        observe=lambda memory, steps: jnp.broadcast_to(memory, (n, n * n)),
        play=play, optimum=1.0, random=random,
    )  # fmt: skip


def _specialisation(n, horizon=10):
    """r_i = 1 / (agents that chose the same action): 1 only if all differ."""
    return _matrix_game(lambda same: 1.0 / same, n, horizon, 1.0 - (1.0 - 1.0 / n) ** n)


def _synchronisation(n, horizon=10):
    """r_i = 1 / (n - agents that chose the same action + 1): 1 only if all agree."""
    others = np.arange(n)
    binomial = np.array([np.prod((n - 1 - np.arange(k)) / (1 + np.arange(k))) for k in others])
    chance = binomial * (1 / n) ** others * (1 - 1 / n) ** (n - 1 - others)
    random = float(np.sum(chance / (n - others)))
    return _matrix_game(lambda same: 1.0 / (n - same + 1.0), n, horizon, random)


_GAMES = {
    "probe_constant": _constant_value,
    "probe_observation": _observation_value,
    "probe_action": _action_reward,
    "probe_action_continuous": _action_reward_continuous,
    "probe_memory": _memory,
    **{f"specialisation_{n}": lambda n=n: _specialisation(n) for n in (2, 4, 8, 16)},
    **{f"synchronisation_{n}": lambda n=n: _synchronisation(n) for n in (2, 4, 8, 16)},
}
NAMES = tuple(_GAMES)


def canonical(name: str) -> str | None:
    """The registered spelling of a game's name; None if it is not one of these."""
    return name if name in _GAMES else None


def make(name: str) -> Game:
    """Builds the game `name`; games have no options."""
    if name not in _GAMES:
        raise ConfigError(f"env={name} is not known; choose one of {', '.join(NAMES)}.")
    return _GAMES[name]()
