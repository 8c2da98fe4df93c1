"""Wrappers that change what agents see, and nothing else."""

import jax.numpy as jnp

from lorasa_jax.envs.types import TimeStep


class ObservationWrapper:
    """Passes everything on to `env`, and every time step through `view`."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def alike(self) -> dict[str, int]:
        """Features that agents still see alike after `view`; a subclass says which, here none."""
        return {}

    def view(self, timestep: TimeStep) -> TimeStep:
        raise NotImplementedError

    def reset(self, key):
        state, timestep = self.env.reset(key)
        return state, self.view(timestep)

    def step(self, key, state, actions):
        state, timestep = self.env.step(key, state, actions)
        return state, self.view(timestep)

    def set_physics(self, qpos, qvel):
        state, timestep = self.env.set_physics(qpos, qvel)
        return state, self.view(timestep)


class AgentIds(ObservationWrapper):
    """Appends each agent's one-hot identity to its observation and its state."""

    @property
    def alike(self):
        return getattr(self.env, "alike", {})

    @property
    def observation_size(self):
        return self.env.observation_size + self.env.num_agents

    @property
    def state_size(self):
        return self.env.state_size + self.env.num_agents

    def view(self, timestep):
        ids = jnp.eye(self.env.num_agents, dtype=timestep.obs.dtype)
        return timestep._replace(
            obs=jnp.concatenate([timestep.obs, ids], axis=-1),
            state=jnp.concatenate([timestep.state, ids], axis=-1),
        )


class Standardise(ObservationWrapper):
    """Each vector minus its own mean, over its own standard deviation, as the authors' code does.

    The networks begin with a LayerNorm, which makes this redundant; it is here for comparisons.
    """

    @property
    def alike(self):
        return getattr(self.env, "alike", {})

    def view(self, timestep):
        def standardise(x):
            centred = x - x.mean(-1, keepdims=True)
            return centred / jnp.maximum(x.std(-1, keepdims=True), 1e-8)

        return timestep._replace(obs=standardise(timestep.obs), state=standardise(timestep.state))
