from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lorasa_jax.envs.types import Box, Discrete, TimeStep
from lorasa_jax.learn import rollout, team, value_norm
from lorasa_jax.learn.mappo import TrainState
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.networks import RecurrentNetwork, parameters

THREE = Discrete(3)


class Count(NamedTuple):
    steps: jax.Array
    total: jax.Array


@dataclass(frozen=True)
class Counter:
    """Counts steps and sums actions, and shows both. Two agents, nothing random.

    Terminates when no action is above 0, is truncated after `max_steps`. Agent 1 is active for
    two steps and may not use the last action. The reward is the step's number plus the actions.
    """

    action_space: Discrete | Box = THREE
    max_steps: int = 3
    num_agents = 2
    agents = ("agent_0", "agent_1")
    observation_size = 5
    state_size = 6
    truncates_early = False

    def reset(self, key):
        state = Count(jnp.zeros(()), jnp.zeros(()))
        return state, self._timestep(state, jnp.zeros(()), jnp.zeros((), bool))

    def step(self, key, state, actions):
        played = actions.sum().astype(float)
        state = Count(state.steps + 1, state.total + played)
        return state, self._timestep(state, state.steps + played, jnp.all(actions <= 0))

    def view(self, steps, total):
        """Observation and state of both agents."""
        shown = jnp.broadcast_to(jnp.stack([steps, total, jnp.ones(())]), (2, 3))
        obs = jnp.concatenate([shown, jnp.eye(2)], axis=-1)
        return obs, jnp.concatenate([obs, jnp.full((2, 1), jnp.square(steps))], axis=-1)

    def _timestep(self, state, reward, terminated):
        obs, view = self.view(*state)
        discrete = isinstance(self.action_space, Discrete)
        width = self.action_space.n if discrete else self.action_space.size
        return TimeStep(
            obs=obs,
            state=view,
            reward=reward,
            terminated=terminated,
            truncated=state.steps >= self.max_steps,
            active=jnp.array([True, False]) | (state.steps < 2),
            legal=jnp.arange(width)[None] < jnp.array([[width], [width - 1]]),
            info={"won": terminated},
        )


@pytest.fixture(scope="session")
def counter():
    return Counter


@pytest.fixture(scope="session")
def randomise():
    """A tree of the same shapes with normal noise in place of values."""

    def randomise(tree, seed, scale=0.5):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.float32(scale * rng.standard_normal(x.shape)), tree)

    return randomise


@pytest.fixture(scope="session")
def make_team():
    """A small team; plain gradient descent, so that sums are not hidden behind Adam."""

    def make(env, actor, critic, hidden=8, optimiser=None):
        optimiser = optimiser or optax.sgd(0.1)
        discrete = isinstance(env.action_space, Discrete)
        distribution = (
            Categorical(env.action_space.n) if discrete else SquashedGaussian(env.action_space.size)
        )
        policy = RecurrentNetwork(distribution.heads, distribution.vectors, hidden)
        value = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, hidden)
        return Team(
            env,
            distribution,
            Role(policy, actor, optimiser, env.observation_size),
            Role(value, critic, optimiser, env.state_size),
        )

    return make


@pytest.fixture(scope="session")
def make_state(randomise):
    """A train state whose networks are random in every parameter, biases and norms included."""

    def make(team_, num_envs, seed=0):
        def learner(role, seed):
            def init(key):
                return role.scheme.init(key, lambda k: parameters(role.network, k, role.features))

            return team.start(role, randomise(jax.eval_shape(init, jax.random.key(0)), seed))

        key = jax.random.key(seed)
        return TrainState(
            key,
            learner(team_.actor, 2 * seed),
            learner(team_.critic, 2 * seed + 1),
            value_norm.init(team_.env.num_agents),
            rollout.start(jax.random.fold_in(key, 1), team_, num_envs),
        )

    return make
