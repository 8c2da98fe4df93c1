"""A partitioned MuJoCo robot as a cooperative task over any stepper."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jax.core import Tracer

from lorasa_jax.envs.mamujoco import observations
from lorasa_jax.envs.mamujoco.partitions import Partition
from lorasa_jax.envs.mamujoco.physics import PhysState, Stepper, at_rest
from lorasa_jax.envs.mamujoco.rewards import Step
from lorasa_jax.envs.mamujoco.robots import Robot
from lorasa_jax.envs.types import Box, TimeStep


class RobotState(NamedTuple):
    """physics, the robot's measure (m) as of the last step or reset, and steps so far."""

    physics: PhysState
    measure: jax.Array
    steps: jax.Array


class Measure(NamedTuple):
    """What a robot's reward looks at: a scalar (m) of qpos, derived fields and body masses.

    at_rest(qpos) is its value in a fresh state where that needs no engine, else None.
    """

    fields: tuple[str, ...]
    value: Callable
    at_rest: Callable | None = None


def _centre_of_mass(qpos, derived, mass):
    return jnp.sum(mass * derived["xipos"][:, 0]) / jnp.sum(mass)


def _reach(qpos, derived, mass):
    return jnp.linalg.norm(derived["xpos"][3] - derived["xpos"][4])


MEASURES = {
    "root": Measure((), lambda qpos, derived, mass: qpos[0], lambda qpos: qpos[0]),
    "torso": Measure(
        ("xpos",), lambda qpos, derived, mass: derived["xpos"][1, 0], lambda qpos: qpos[0]
    ),
    "com": Measure(("xipos",), _centre_of_mass),
    "reach": Measure(("xpos",), _reach),
}


def derived_fields(robot: Robot) -> tuple[str, ...]:
    """The fields beyond qpos and qvel that an engine has to give for this robot."""
    observed = {span.field for span in robot.state} | set(robot.local)
    fields = observed & {"cinert", "cvel", "qfrc_actuator", "cfrc_ext"}
    fields |= set(MEASURES[robot.measure].fields)
    if robot.extras:
        fields.add("xpos")
    if not robot.contact_forces:
        fields.discard("cfrc_ext")
    return tuple(sorted(fields))


class MultiAgentMujoco:
    """Every agent drives some joints of one robot and sees those joints and their neighbours.

    k: how far in the joint graph an agent sees (0: its own joints; None: 1, if there are others).
    global_categories: of the robot's root, `qpos` and `qvel`, shown to every agent.
    full_observation: every agent sees the state instead. model: the robot's physics model, for its
    sizes, ranges and pictures.
    """

    truncates_early = False

    @property
    def engine(self) -> str:
        """The physics engine's name: what `auto` has become."""
        return self.stepper.name

    def __init__(
        self,
        robot: Robot,
        partition: Partition,
        stepper: Stepper,
        model: mujoco.MjModel,
        *,
        action_order: str = "node",
        k: int | None = None,
        global_categories: tuple[str, ...] = (),
        full_observation: bool = False,
    ):
        self.robot, self.partition, self.stepper, self.model = robot, partition, stepper, model
        self.num_agents = len(partition.agents)
        self.agents = tuple(f"agent_{i}" for i in range(self.num_agents))
        self.max_steps = robot.max_steps
        self.dt = model.opt.timestep * robot.frame_skip
        self.measure = MEASURES[robot.measure]
        self._masses = np.array(model.body_mass)
        self._qpos0 = np.array(model.qpos0)
        self.source = observations.Source(robot, model)
        self._state = observations.state_view(self.source)
        if full_observation:
            self._observed = jax.tree.map(lambda x: np.tile(x, (self.num_agents, 1)), self._state)
        else:
            self._observed = observations.observation_view(
                self.source, partition, k, global_categories
            )
        self.action_index = observations.action_index(partition, model, action_order)
        self._legal = self.action_index >= 0
        self._order = np.argsort(self.action_index[self._legal])
        low, high = model.actuator_ctrlrange.T
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self.observation_size = self._observed.index.shape[1]
        self.state_size = len(self._state.index)
        self.alike = {"state": self.state_size}
        if full_observation:
            self.alike["obs"] = self.observation_size
        self.action_space = Box(self.action_index.shape[1])
        # What a fresh state needs from the engine: all that is observed, and some measures.
        observed = set(self.source.fields) & {"cinert", "cvel", "qfrc_actuator", "extra"}
        self._needs_forward = bool(observed)

    def reset(self, key):
        """The robot's rest pose with Gym's noise; in v2 tasks a free root's quaternion is unit."""
        robot, noise = self.robot, self.robot.reset
        keys = jax.random.split(key, 3)
        qpos = jax.random.uniform(keys[0], self._qpos0.shape, minval=-noise.qpos, maxval=noise.qpos)
        qpos += self._qpos0
        shape = (self.model.nv,)
        if noise.normal:
            qvel = noise.qvel * jax.random.normal(keys[1], shape)
        else:
            qvel = jax.random.uniform(keys[1], shape, minval=-noise.qvel, maxval=noise.qvel)
        if robot.free_root and robot.unit_quaternion:
            qpos = qpos.at[3:7].divide(jnp.linalg.norm(qpos[3:7]))
        if robot.place:
            qpos, qvel = robot.place(keys[2], qpos, qvel)
        return self.set_physics(qpos, qvel)

    def set_physics(self, qpos, qvel, warmstart=None):
        """Starts an episode at qpos [nq], qvel [nv]; reward and flags as after a reset."""
        physics = at_rest(jnp.asarray(qpos, float), jnp.asarray(qvel, float))
        if warmstart is not None:
            physics = physics._replace(warmstart=jnp.asarray(warmstart, float))
        if self._needs_forward or self.measure.at_rest is None:
            derived = self.stepper.forward(physics)
            measure = self.measure.value(physics.qpos, derived, self._masses)
        else:
            derived, measure = {}, self.measure.at_rest(physics.qpos)
        flag = jnp.zeros((), bool)
        state = RobotState(physics, measure, jnp.zeros((), jnp.int32))
        return state, self._timestep(physics, derived, jnp.zeros(()), flag, flag)

    def step(self, key, state, actions):
        """actions [agent, size] in [-1, 1] become torques over each actuator's range.

        A step that is not finite terminates the episode; its reward is not finite either, so that
        training notices. Raises ValueError for actions that are not finite where they
        are known (outside jit and vmap).
        """
        del key
        _check_finite(actions)
        robot = self.robot
        ctrl = self._middle + self._half * actions[self._legal][self._order]
        physics, derived = self.stepper.step(state.physics, ctrl)
        measure = self.measure.value(physics.qpos, derived, self._masses)
        parts = (ctrl, physics.qpos, physics.qvel)
        finite = jnp.array([jnp.isfinite(part).all() for part in parts]).all()
        healthy = finite
        for bound in robot.health:
            values = getattr(physics, bound.span.field)[bound.span.start : bound.span.stop]
            above, below = values - bound.low, bound.high - values
            inside = (above > 0) & (below > 0) if bound.strict else (above >= 0) & (below >= 0)
            healthy &= inside.all()
        step = Step(
            before=state.measure,
            after=measure,
            qpos=physics.qpos,
            derived=derived,
            ctrl=ctrl,
            healthy=healthy,
            dt=self.dt,
            timestep=self.model.opt.timestep,
        )
        reward = jnp.where(finite, sum(term(step) for term in robot.rewards), jnp.nan)
        steps = state.steps + 1
        timestep = self._timestep(physics, derived, reward, ~healthy, steps >= self.max_steps)
        return RobotState(physics, measure, steps), timestep

    def film(
        self, states: RobotState, path: Path, *, rewards: np.ndarray | None = None, title: str = ""
    ) -> Path:
        """Writes states [time + 1, ...] and rewards [time] as .mp4 or .gif.

        Raises:
          ConfigError: nothing can be drawn here.
        """
        from lorasa_jax.envs.mamujoco import pictures

        qpos = np.asarray(states.physics.qpos, float)
        return pictures.film(
            path, self.model, self.partition, qpos, dt=self.dt, rewards=rewards, title=title
        )

    def replay(self, states: RobotState, rewards: np.ndarray, path: Path, *, title: str) -> Path:
        """Writes states [time + 1, ...] and rewards [time] as an interactive HTML page."""
        from lorasa_jax.envs.mamujoco.replay import page, scene

        rewards = np.concatenate([[0.0], rewards])
        recording = scene.record(
            self.model, np.asarray(states.physics.qpos, float), self.partition.agents,
            dt=self.dt, title=title, rewards=rewards,
        )  # fmt: skip
        return page.write(path, recording)

    def _timestep(self, physics: PhysState, derived, reward, terminated, truncated):
        parts = []
        for name, size in self.source.sizes.items():
            if name in ("qpos", "qvel"):
                parts.append(getattr(physics, name))
            elif name == "extra":
                assert self.robot.extras is not None  # else it is no field
                parts.append(self.robot.extras(physics.qpos, derived))
            elif name in derived:
                parts.append(derived[name].reshape(size))
            else:
                parts.append(jnp.zeros(size, physics.qpos.dtype))
        source = jnp.concatenate([*parts, jnp.zeros(1, physics.qpos.dtype)])
        state = _look(source, self._state)
        return TimeStep(
            obs=_look(source, self._observed),
            state=jnp.broadcast_to(state, (self.num_agents, self.state_size)),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            active=jnp.ones(self.num_agents, bool),
            legal=jnp.asarray(self._legal),
            info={},
        )


def _look(source, view: observations.View):
    entries = source[view.index]
    if np.isinf(view.bound).all():
        return entries
    return jnp.clip(entries, -view.bound, view.bound)


def _check_finite(actions):
    if not isinstance(actions, Tracer) and not np.isfinite(actions).all():
        raise ValueError("the actions are not all finite numbers; give values in [-1, 1].")
