"""Episodes of MuJoCo robots as video, each agent's limbs in its colour, drawn without a screen."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
from rich.console import Console
from rich.progress import track

from lorasa_jax.envs.mamujoco.partitions import Partition
from lorasa_jax.envs.mamujoco.replay import scene
from lorasa_jax.envs.video import frame_stride, write_video
from lorasa_jax.errors import ConfigError

SIZE = (480, 360)  # pixels, width and height


def film(
    path: Path, model: mujoco.MjModel, partition: Partition, qpos: np.ndarray, *, dt: float
) -> Path:
    """Writes an MP4 or GIF (by the path's suffix) of states qpos [time, nq], dt (s) apart.

    Raises:
      ConfigError: there is no way to draw here.
    """
    stride, rate = frame_stride(dt)
    shown = qpos[::stride]
    drawn = track(
        frames(model, partition, shown), "drawing", total=len(shown), transient=True,
        disable=not Console().is_terminal,
    )  # fmt: skip
    return write_video(path, drawn, rate=rate)


def frames(model: mujoco.MjModel, partition: Partition, qpos: np.ndarray) -> Iterator[np.ndarray]:
    """RGB pictures [height, width, 3] (uint8) of states qpos [time, nq]; follows the robot."""
    width, height = SIZE
    model = _coloured(model, partition)
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    context = _context(width, height)
    context.make_current()
    try:
        drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
        world = mujoco.MjvScene(model, maxgeom=1000)
        for flag in (mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SHADOW):
            world.flags[flag] = 0  # without an accelerator they take most of the time
        data, options = mujoco.MjData(model), mujoco.MjvOption()
        camera, viewport = _camera(model), mujoco.MjrRect(0, 0, width, height)
        picture = np.empty((height, width, 3), np.uint8)
        for pose in np.asarray(qpos, float):
            data.qpos[:] = pose
            mujoco.mj_forward(model, data)
            everything = mujoco.mjtCatBit.mjCAT_ALL
            mujoco.mjv_updateScene(model, data, options, None, camera, everything, world)
            mujoco.mjr_render(viewport, world, drawing)
            mujoco.mjr_readPixels(picture, None, viewport, drawing)
            yield picture[::-1].copy()
        drawing.free()
    finally:
        context.free()


def _coloured(model, partition):
    """A copy of the model whose limbs have their agents' colours."""
    model = copy.copy(model)
    colours = scene.body_colours(model, partition.agents)
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom]:
            model.geom_rgba[geom] = [*colours[model.geom_bodyid[geom]], 1.0]
            model.geom_matid[geom] = -1
    return model


def _camera(model):
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_TRACKING
    camera.trackbodyid = 1
    camera.distance = 0.8 * model.stat.extent
    camera.azimuth, camera.elevation = scene.view(model)
    return camera


def _context(width, height):
    """An OpenGL context without a screen: EGL, or OSMesa where that is what there is."""
    for backend in dict.fromkeys([os.environ.get("MUJOCO_GL", "egl"), "egl", "osmesa"]):
        try:
            if backend == "egl":
                from mujoco.egl import GLContext
            elif backend == "osmesa":
                from mujoco.osmesa import GLContext
            else:
                continue
            return GLContext(width, height)
        except (ImportError, AttributeError, RuntimeError, OSError):
            continue
    raise ConfigError(
        "no OpenGL without a screen was found to draw with; install libegl1 or libosmesa6 "
        "(or leave out render)."
    )
