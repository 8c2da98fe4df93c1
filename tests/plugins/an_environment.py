"""Two agents are paid for agreeing."""

import jax.numpy as jnp

from lorasa_jax import envs


class Agreement:
    """One choice of two, then the end."""

    num_agents, agents, max_steps = 2, ("left", "right"), 1
    observation_size = state_size = 1
    action_space = envs.Discrete(2)

    def reset(self, key):
        return jnp.zeros(()), self._timestep(jnp.zeros(()), False)

    def step(self, key, state, actions):
        return state, self._timestep((actions[0] == actions[1]).astype(jnp.float32), True)

    def _timestep(self, reward, ended):
        return envs.TimeStep(
            obs=jnp.zeros((2, 1)), state=jnp.zeros((2, 1)), reward=reward,
            terminated=jnp.array(ended), truncated=jnp.array(False),
            active=jnp.ones(2, bool), legal=jnp.ones((2, 2), bool), info={},
        )  # fmt: skip


envs.register("agreement", Agreement)
