"""MuJoCo XLA: the same physics as the C engine, written in JAX; and its Warp kernels on CUDA."""

import contextlib
import importlib.util
import io

import jax
import jax.numpy as jnp
import mujoco

with contextlib.redirect_stdout(io.StringIO()):  # MJX prints that its optional engine is absent
    from mujoco import mjx
from mujoco.mjx._src import collision_driver, collision_primitive, math
from mujoco.mjx._src.types import GeomType

from lorasa_jax.envs.mamujoco.physics import PhysState
from lorasa_jax.errors import ConfigError

_PRIVATE = ("cinert", "cfrc_ext")  # MJX keeps these with its implementation


class MjxStepper:
    """Equal to the C engine to 1e-10 (qpos) and 1e-9 (qvel) per environment step in float64.

    Models that ask for the PGS solver (the humanoids) run with Newton here, which MJX has.
    """

    name = "mjx"

    def __init__(self, model: mujoco.MjModel, frame_skip: int, derived: tuple[str, ...] = ()):
        # The solver stops at its tolerance, which all robots reach within these bounds.
        model.opt.iterations = 8
        model.opt.ls_iterations = 16
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        self._frame_skip, self._derived = frame_skip, derived
        self._prepare(model)

    def _prepare(self, model):
        _mend_collisions()
        self._model = mjx.put_model(model)
        self._rest = mjx.make_data(model)

    @jax.default_matmul_precision("float32")  # on NVIDIA JAX would round to TF32
    def step(self, physics: PhysState, ctrl: jax.Array) -> tuple[PhysState, dict]:
        data = self._data(physics).replace(ctrl=ctrl)
        data = jax.lax.fori_loop(0, self._frame_skip, self._substep, data)
        if "cfrc_ext" in self._derived:
            data = mjx.rne_postconstraint(self._model, data)
        return PhysState(data.qpos, data.qvel, data.qacc_warmstart), self._read(data)

    @jax.default_matmul_precision("float32")
    def forward(self, physics: PhysState) -> dict:
        return self._read(mjx.forward(self._model, self._data(physics)))

    def _substep(self, _, data):
        """One physics step; MJX widens some integers under x64, which a loop does not allow."""
        after = mjx.step(self._model, data)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), after, data)

    def _data(self, physics):
        return self._rest.replace(
            qpos=physics.qpos, qvel=physics.qvel, qacc_warmstart=physics.warmstart
        )

    def _read(self, data):
        return {
            name: getattr(data._impl if name in _PRIVATE else data, name) for name in self._derived
        }


class WarpStepper(MjxStepper):
    """MJX on NVIDIA's Warp kernels: float32, CUDA only.

    Contacts are allocated beforehand for all robots of a batch together, rows of constraints for
    each: enough for `most_robots` at a time; beyond that Warp drops contacts and says so.

    Raises:
      ConfigError: warp is not installed, there is no CUDA device, or the task needs contact forces.
    """

    name = "warp"
    most_robots = 4096

    def _prepare(self, model):
        if importlib.util.find_spec("warp") is None:
            raise ConfigError(
                "env.engine=warp needs the package mujoco-mjx[warp]; install it or choose "
                "env.engine=mjx."
            )
        if jax.default_backend() != "gpu":
            raise ConfigError(
                "env.engine=warp needs a CUDA device, and JAX sees none; choose env.engine=native "
                "or mjx."
            )
        if "cfrc_ext" in self._derived:
            raise ConfigError(
                "env.engine=warp gives no contact forces, which profile gymnasium needs here; "
                "choose env.engine=mjx or env.profile=lorasa."
            )
        from lorasa_jax.envs.mamujoco.warp_contacts import mend

        mend()
        model.opt.ls_iterations = 50  # its line search is not MJX's; MuJoCo's own default
        contacts = max(64, 2 * model.ngeom)
        self._model = mjx.put_model(model, impl="warp")
        self._rest = mjx.make_data(
            model,
            impl="warp",
            naconmax=self.most_robots * contacts,
            njmax=4 * contacts + 2 * model.njnt,  # four edges a friction cone, two limits a joint
        )


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


@collision_primitive.collider(ncon=1)
def _sphere_capsule(sphere, capsule):
    """One contact at the capsule axis's closest point, exactly.

    MJX 3.17 regularises that point by 1e-6, which moves contacts by micrometres and, on the
    humanoid, velocities by 1e-4 a step.
    """
    axis = capsule.mat[:, 2]
    along = jnp.clip(jnp.dot(sphere.pos - capsule.pos, axis), -capsule.size[1], capsule.size[1])
    return _touch(sphere.pos, sphere.size[0], capsule.pos + along * axis, capsule.size[0])


@collision_primitive.collider(ncon=1)
def _capsule_capsule(one, other):
    """One contact at the closest points of two axes, exactly; see `_sphere_capsule`."""
    u, v = one.mat[:, 2], other.mat[:, 2]
    between = one.pos - other.pos
    cosine, on_u, on_v = jnp.dot(u, v), jnp.dot(u, between), jnp.dot(v, between)
    determinant = jnp.maximum(1.0 - jnp.square(cosine), mujoco.mjMINVAL)

    def clip(along, geom):
        return jnp.clip(along, -geom.size[1], geom.size[1])

    # Of the free lines, then along each axis in turn from the other's clipped point.
    first = clip((cosine * on_v - on_u) / determinant, one)
    second = clip(cosine * first + on_v, other)
    first = clip(cosine * second - on_u, one)
    return _touch(one.pos + first * u, one.size[0], other.pos + second * v, other.size[0])


def _touch(centre, radius, other_centre, other_radius):
    """The contact of two spheres: (distance, position, frame)."""
    normal, centre_distance = math.normalize_with_norm(other_centre - centre)
    normal = jnp.where(centre_distance == 0.0, jnp.eye(3)[0], normal)
    distance = centre_distance - radius - other_radius
    position = centre + normal * (radius + 0.5 * distance)
    return distance, position, math.make_frame(normal)


_MENDED = {
    (GeomType.PLANE, GeomType.CAPSULE): _plane_capsule,
    (GeomType.SPHERE, GeomType.CAPSULE): _sphere_capsule,
    (GeomType.CAPSULE, GeomType.CAPSULE): _capsule_capsule,
}


def _mend_collisions():
    """Puts the C engine's geometry into MJX's table of colliders, for all of the process."""
    table = collision_driver._COLLISION_FUNC
    if not table.keys() >= _MENDED.keys():
        raise ConfigError(
            "the installed mujoco-mjx keeps its colliders elsewhere; install the one in "
            "constraints.txt."
        )
    table.update(_MENDED)
