"""What a robot's task pays for: terms as data, added up by the environment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Step(NamedTuple):
    """All that a reward may look at after one environment step.

    before and after are the robot's measure (see robots.py) around the step; dt (s) is an
    environment step, timestep (s) a physics step; ctrl are the torques as sent to the motors.
    """

    before: jax.Array
    after: jax.Array
    qpos: jax.Array
    derived: dict[str, jax.Array]
    ctrl: jax.Array
    healthy: jax.Array
    dt: float
    timestep: float


class Forward(NamedTuple):
    """`weight` times the measure's velocity."""

    weight: float

    def __call__(self, step: Step):
        return self.weight * ((step.after - step.before) / step.dt)


class Control(NamedTuple):
    """Minus `weight` times the squared torques, which are not clipped to the motors' range."""

    weight: float

    def __call__(self, step: Step):
        return -self.weight * jnp.sum(jnp.square(step.ctrl))


class Contact(NamedTuple):
    """Minus `weight` times the squared contact forces, each within +-entry, at most `most`."""

    weight: float
    entry: float = jnp.inf
    most: float = jnp.inf

    def __call__(self, step: Step):
        forces = jnp.clip(step.derived["cfrc_ext"], -self.entry, self.entry)
        return -jnp.minimum(self.weight * jnp.sum(jnp.square(forces)), self.most)


class Survive(NamedTuple):
    """`reward` a step; on the step that ends the episode only if `always`."""

    reward: float
    always: bool = True

    def __call__(self, step: Step):
        return self.reward if self.always else jnp.where(step.healthy, self.reward, 0.0)


class Height(NamedTuple):
    """`weight` times the root's height over one physics step (so the standing-up task has it)."""

    weight: float

    def __call__(self, step: Step):
        return self.weight * (step.qpos[2] / step.timestep)


class Distance(NamedTuple):
    """Minus the measure, taken before the step (v2) or after it (v5)."""

    after: bool

    def __call__(self, step: Step):
        return -(step.after if self.after else step.before)
