"""A partitioned MuJoCo robot as a cooperative task over any stepper."""

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.envs.mamujoco import observations
from lorasa_jax.envs.mamujoco.partitions import Partition
from lorasa_jax.envs.mamujoco.physics import PhysState, Stepper, at_rest
from lorasa_jax.envs.types import Box, TimeStep


class MultiAgentMujoco:
    """Every agent drives some joints of one robot and sees those joints and their neighbours.

    Profile `lorasa`: the v2 tasks as the paper ran them. Contact forces are observed as zeros
    (MuJoCo 2.x left them so), the survival bonus is paid on the terminating step too.
    """

    max_steps = 1000

    def __init__(
        self,
        partition: Partition,
        stepper: Stepper,
        *,
        dt: float,
        qpos0: np.ndarray,
        ctrl_range: np.ndarray,
        action_order: str,
    ):
        robot = partition.robot
        self.robot, self.stepper = robot, stepper
        self.num_agents = len(partition.agents)
        self.agents = tuple(f"agent_{i}" for i in range(self.num_agents))
        self._dt, self._qpos0 = dt, qpos0
        self._observed = observations.observation_index(partition)
        self._state = observations.state_index(robot)
        actuators = observations.action_index(partition, action_order)
        self._legal = actuators >= 0
        self._order = np.argsort(actuators[self._legal])
        low, high = ctrl_range[:, 0], ctrl_range[:, 1]
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self.observation_size = self._observed.shape[1]
        self.state_size = len(self._state)
        self.action_space = Box(actuators.shape[1])

    def reset(self, key):
        """The robot's rest pose with Gym's v2 noise; a free root's quaternion is normalised."""
        noise_qpos, noise_qvel = jax.random.split(key)
        robot = self.robot
        qpos = self._qpos0 + jax.random.uniform(
            noise_qpos, (robot.nq,), minval=-robot.reset_qpos, maxval=robot.reset_qpos
        )
        qvel = robot.reset_qvel * jax.random.normal(noise_qvel, (robot.nv,))
        qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        return self.set_physics(qpos, qvel)

    def set_physics(self, qpos, qvel):
        """Starts an episode at qpos [nq], qvel [nv]; reward and flags as after a reset."""
        physics = at_rest(jnp.asarray(qpos, float), jnp.asarray(qvel, float))
        steps = jnp.zeros((), jnp.int32)
        flag = jnp.zeros((), bool)
        return (physics, steps), self._timestep(physics, jnp.zeros(()), flag, flag)

    def step(self, key, state, actions):
        """actions [agent, size] in [-1, 1] become torques over each actuator's range.

        A step that is not finite terminates the episode; its reward is not finite either, so that
        whoever trains on it notices.
        """
        del key
        before, steps = state
        robot = self.robot
        ctrl = self._middle + self._half * actions[self._legal][self._order]
        physics = self.stepper.step(before, ctrl)
        steps = steps + 1
        velocity = (physics.torso_x - before.torso_x) / self._dt
        reward = (
            robot.forward_weight * velocity
            + robot.healthy_reward
            - robot.control_weight * jnp.sum(jnp.square(ctrl))
        )
        low, high = robot.healthy_z
        height = physics.qpos[2]
        parts = (ctrl, physics.qpos, physics.qvel)
        finite = jnp.array([jnp.isfinite(part).all() for part in parts]).all()
        healthy = finite & (low <= height) & (height <= high)
        truncated = steps >= self.max_steps
        return (physics, steps), self._timestep(physics, reward, ~healthy, truncated)

    def _timestep(self, physics: PhysState, reward, terminated, truncated):
        contacts_and_padding = jnp.zeros(6 * self.robot.nbody + 1, physics.qpos.dtype)
        everything = jnp.concatenate([physics.qpos, physics.qvel, contacts_and_padding])
        return TimeStep(
            obs=everything[self._observed],
            state=jnp.broadcast_to(everything[self._state], (self.num_agents, self.state_size)),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            active=jnp.ones(self.num_agents, bool),
            legal=jnp.asarray(self._legal),
            info={},
        )
