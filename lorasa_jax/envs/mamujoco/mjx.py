"""MuJoCo XLA: the same physics as the C engine, written in JAX."""

import contextlib
import io

import jax
import jax.numpy as jnp
import mujoco

with contextlib.redirect_stdout(io.StringIO()):  # MJX prints that its optional engine is absent
    from mujoco import mjx
from mujoco.mjx._src import collision_driver, collision_primitive, math
from mujoco.mjx._src.types import GeomType

from lorasa_jax.envs.mamujoco.physics import PhysState


class MjxStepper:
    """Equal to the C engine to 1e-10 (qpos) and 1e-9 (qvel) per environment step in float64."""

    def __init__(self, model: mujoco.MjModel, frame_skip: int, torso: int):
        _mend_plane_capsule()
        # The solver stops at its tolerance, which all four robots reach within these bounds.
        model.opt.iterations = 8
        model.opt.ls_iterations = 16
        self._model = mjx.put_model(model)
        self._rest = mjx.make_data(model)
        self._frame_skip, self._torso = frame_skip, torso

    def step(self, physics: PhysState, ctrl: jax.Array) -> PhysState:
        data = self._rest.replace(
            qpos=physics.qpos, qvel=physics.qvel, qacc_warmstart=physics.warmstart, ctrl=ctrl
        )
        data = jax.lax.fori_loop(
            0, self._frame_skip, lambda _, data: mjx.step(self._model, data), data
        )
        return PhysState(data.qpos, data.qvel, data.qacc_warmstart, data.xpos[self._torso, 0])


@collision_primitive.collider(ncon=2)
def _plane_capsule(plane, capsule):
    """Two contacts whose tangent always follows the capsule's axis, as in the C engine.

    MJX 3.17 turns to a fixed axis when the capsule stands within 30 degrees of the plane's
    normal, and pyramidal friction cones feel the difference.
    """
    normal, axis = plane.mat[:, 2], capsule.mat[:, 2]
    tangent, length = math.normalize_with_norm(axis - normal * jnp.dot(normal, axis))
    tangent = jnp.where(length < mujoco.mjMINVAL, jnp.eye(3)[0], tangent)
    frame = jnp.stack([normal, tangent, jnp.cross(normal, tangent)])

    def contact(end):
        distance = jnp.dot(end - plane.pos, normal) - capsule.size[0]
        return distance, end - normal * (capsule.size[0] + 0.5 * distance), frame

    half = axis * capsule.size[1]
    ends = contact(capsule.pos + half), contact(capsule.pos - half)
    return jax.tree.map(lambda *pair: jnp.stack(pair), *ends)


def _mend_plane_capsule():
    table = collision_driver._COLLISION_FUNC
    if (GeomType.PLANE, GeomType.CAPSULE) not in table:
        raise ImportError("MJX keeps its colliders elsewhere; install the pinned mujoco-mjx.")
    table[(GeomType.PLANE, GeomType.CAPSULE)] = _plane_capsule
