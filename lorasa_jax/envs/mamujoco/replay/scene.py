"""What is to be seen of an episode: poses, shapes and colours of a robot's geoms."""

import colorsys

import mujoco
import numpy as np

# Okabe and Ito's colours, which the colour-blind tell apart, with a wine red for their black.
_COLOURS = (
    "0072b2", "e69f00", "009e73", "cc79a7", "56b4e9", "d55e00", "f0e442", "882255",
)  # fmt: skip
_TURN = 130 / 360  # of the hue, for each further round through the colours
GREY = (0.62, 0.62, 0.62)

_TYPES = {
    int(mujoco.mjtGeom.mjGEOM_PLANE): "plane",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
}


def palette(count: int) -> np.ndarray:
    """Colours [count, 3], sRGB in 0 ... 1."""
    return np.array([_colour(i) for i in range(count)]).reshape(count, 3)


def _colour(index):
    code = _COLOURS[index % len(_COLOURS)]
    rgb = tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    turns = index // len(_COLOURS)
    if not turns:
        return rgb
    hue, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    return colorsys.hls_to_rgb((hue + turns * _TURN) % 1.0, lightness, saturation)


def body_agents(model: mujoco.MjModel, agents: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """The agent [nbody] whose colour a body has, -1 for none; agents[i] are agent i's joints.

    A body belongs to the agent of its first driven joint. One without joints belongs to the agent
    that drives the one limb hanging on it or, where nothing driven does, goes with its parent.
    """
    owner = np.full(model.nbody, -1)
    below = [set() for _ in range(model.nbody)]
    limbs = np.zeros(model.nbody, int)
    driver = {model.joint(name).id: i for i, agent in enumerate(agents) for name in agent}
    for body in reversed(range(1, model.nbody)):
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        drivers = [driver[j] for j in range(first, first + count) if j in driver]
        if drivers:
            owner[body] = drivers[0]
        elif not count and limbs[body] == len(below[body]) == 1:
            owner[body] = min(below[body])
        moved = below[body] | set(drivers)
        below[model.body_parentid[body]] |= moved
        limbs[model.body_parentid[body]] += bool(moved)
    for body in range(1, model.nbody):
        if not model.body_jntnum[body] and not below[body]:
            owner[body] = owner[model.body_parentid[body]]
    return owner


def body_colours(model: mujoco.MjModel, agents: tuple[tuple[str, ...], ...]) -> np.ndarray:
    """Colours [nbody, 3], sRGB in 0 ... 1: that of the body's agent, grey where it has none."""
    return np.vstack([palette(len(agents)), GREY])[body_agents(model, agents)]


def view(model: mujoco.MjModel) -> tuple[float, float]:
    """(azimuth, elevation) of a camera, degrees as MuJoCo counts them.

    Oblique for a free robot, from the side for one that moves in a vertical plane, from above for
    the others.
    """
    if np.any(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):
        return 120.0, -25.0
    slides = model.jnt_type == mujoco.mjtJoint.mjJNT_SLIDE
    upright = np.any(slides & (np.abs(model.jnt_axis[:, 2]) > 0.5))
    return (90.0, -10.0) if upright else (90.0, -65.0)


def tile(radius: float) -> float:
    """The side (m) of a floor's tile: 1, 2 or 5 of a power of ten, about half a robot's reach."""
    power = 10.0 ** np.floor(np.log10(0.5 * radius))
    return float(power * next(k for k in (5, 2, 1) if k * power <= 0.5 * radius))


def record(
    model: mujoco.MjModel,
    qpos: np.ndarray,
    agents: tuple[tuple[str, ...], ...],
    *,
    dt: float,
    title: str,
    rewards: np.ndarray | None = None,
) -> dict:
    """All that a replay of states qpos [time, nq], dt (s) apart, has to know.

    rewards [time]: what the step into each state paid, 0 for the first one.

    Returns:
      positions [time, geom, 3] (m) and quaternions [time, geom, 4] (w, x, y, z) of the visible
      geoms in the world, float32; per geom its types (names), sizes [geom, 3] as MuJoCo's
      geom_size, colours [geom, 3], agents [geom] (-1: none) and whether it is fixed [geom] to the
      world; legend, one entry per agent: name, colour, joints, and whether any limb is shown in
      its colour; centre [time, 3] (m), the robot's way without its bobbing, and radius (m), how
      far it reaches from there; view (azimuth, elevation; degrees); dt, title, rewards as given.
    """
    geoms = np.flatnonzero(_visible(model))
    bodies = model.geom_bodyid[geoms]
    owners = body_agents(model, agents)[bodies]
    positions, quaternions = _poses(model, np.asarray(qpos, float), geoms)
    fixed = model.body_weldid[bodies] == 0
    centre, radius = _way(positions[:, ~fixed], model.geom_rbound[geoms][~fixed], dt)
    return {
        "title": title,
        "dt": float(dt),
        "view": view(model),
        "positions": positions,
        "quaternions": quaternions,
        "types": [_type(model, geom) for geom in geoms],
        "sizes": model.geom_size[geoms].copy(),
        "colours": body_colours(model, agents)[bodies],
        "agents": owners,
        "fixed": fixed,
        "centre": centre,
        "radius": radius,
        "legend": [
            {"name": f"agent {i}", "colour": colour, "joints": joints, "shown": bool(i in owners)}
            for i, (joints, colour) in enumerate(zip(agents, palette(len(agents)), strict=True))
        ],
        "rewards": None if rewards is None else np.asarray(rewards, float),
    }


def _visible(model):
    """Whether MuJoCo's viewer shows a geom, unless told otherwise."""
    shown = np.array(mujoco.MjvOption().geomgroup, bool)
    groups = np.clip(model.geom_group, 0, mujoco.mjNGROUP - 1)
    return shown[groups] & (model.geom_rgba[:, 3] > 0)


def _type(model, geom):
    kind = _TYPES.get(int(model.geom_type[geom]))
    if kind is None:
        raise ValueError(f"geom {geom} ({model.geom(geom).name}) is of a type no replay draws")
    return kind


def _poses(model, qpos, geoms):
    data = mujoco.MjData(model)
    positions = np.empty((len(qpos), len(geoms), 3), np.float32)
    quaternions = np.empty((len(qpos), len(geoms), 4), np.float32)
    quaternion = np.empty(4)
    for time, pose in enumerate(qpos):
        data.qpos[:] = pose
        mujoco.mj_kinematics(model, data)
        positions[time] = data.geom_xpos[geoms]
        for i, geom in enumerate(geoms):
            mujoco.mju_mat2Quat(quaternion, data.geom_xmat[geom])
            quaternions[time, i] = quaternion
    return positions, quaternions


def _way(positions, bounds, dt):
    """Mean of the geoms' positions, averaged over half a second, and the reach (m) around it."""
    half = max(1, round(0.25 / dt))
    ends = np.pad(positions.mean(1, dtype=float), ((half, half), (0, 0)), mode="edge")
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    centre = np.stack([np.convolve(axis, kernel, "valid") for axis in ends.T], -1)
    distances = np.linalg.norm(positions - centre[:, None], axis=-1)
    return centre, float((distances + bounds).max())
