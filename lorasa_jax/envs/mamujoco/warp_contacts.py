"""The C engine's contact of a capsule with a plane, for Warp; imported where Warp is installed."""

# Warp is an extra, and reads the kernel's types in a way of its own.
# pyright: reportMissingImports=false, reportArgumentType=false, reportCallIssue=false

import warp as wp
from mujoco.mjx.third_party.mujoco_warp._src import collision_primitive
from mujoco.mjx.third_party.mujoco_warp._src.collision_primitive_core import mat23f, plane_sphere

from lorasa_jax.errors import ConfigError

SMALLEST = wp.constant(1e-15)  # mujoco.mjMINVAL


@wp.func
def plane_capsule(
    normal: wp.vec3,
    point: wp.vec3,
    centre: wp.vec3,
    axis: wp.vec3,
    radius: float,
    half_length: float,
):
    """(distances, positions, frame) of both ends; the tangent always follows the axis.

    MuJoCo Warp, like MJX, turns to a fixed tangent when the capsule stands within 30 degrees of
    the plane's normal.
    """
    along = axis - normal * wp.dot(normal, axis)
    length = wp.length(along)
    tangent = wp.vec3(1.0, 0.0, 0.0)
    if length >= SMALLEST:
        tangent = along / length
    across = wp.cross(normal, tangent)
    half = axis * half_length
    first, at_first = plane_sphere(normal, point, centre + half, radius)
    second, at_second = plane_sphere(normal, point, centre - half, radius)
    positions = mat23f(
        at_first[0], at_first[1], at_first[2], at_second[0], at_second[1], at_second[2]
    )
    frame = wp.matrix_from_rows(normal, tangent, across)
    return wp.vec2(first, second), positions, frame


def mend():
    """Puts the C engine's geometry in place of MuJoCo Warp's, for all of the process.

    Raises:
      ConfigError: the installed mujoco-mjx keeps it elsewhere.
    """
    if not hasattr(collision_primitive, "plane_capsule"):
        raise ConfigError(
            "the installed mujoco-mjx keeps Warp's colliders elsewhere; install the one in "
            "constraints.txt."
        )
    collision_primitive.plane_capsule = plane_capsule
