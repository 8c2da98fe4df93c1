"""Episodes of MuJoCo robots as video, drawn without a screen, with a replay's floor and camera.

Each agent's limbs are in its colour; the picture says which is whose, and what has been earned.
"""

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
from lorasa_jax.envs.video import SIZE, Captions, frame_stride, write_video
from lorasa_jax.errors import ConfigError

# The replay's light colours (viewer.html): behind everything, and the two of the floor's tiles.
SKY, TILES = (232, 237, 243), ((205, 213, 222), (222, 228, 235))
FIELD = 35.0  # degrees that the picture is high, as in the replay
LIGHT = (0.35, -0.45, 1.0)


def film(
    path: Path,
    model: mujoco.MjModel,
    partition: Partition,
    qpos: np.ndarray,
    *,
    dt: float,
    rewards: np.ndarray | None = None,
    title: str = "",
) -> Path:
    """Writes an MP4 or GIF (by the path's suffix) of states qpos [time, nq], dt (s) apart.

    rewards [time - 1]: what each step paid; without them no return is shown.

    Raises:
      ConfigError: there is no way to draw here.
    """
    stride, rate = frame_stride(dt)
    recording = scene.record(model, qpos, partition.agents, dt=dt, title=title)
    captions = _captions(recording, rewards)
    places = range(0, len(qpos), stride)

    def captioned():
        pictures = frames(model, partition, qpos, recording=recording, stride=stride)
        for place, picture in zip(places, pictures, strict=True):
            yield captions.on(picture, place)

    drawn = track(
        captioned(), "drawing", total=len(places), transient=True,
        disable=not Console().is_terminal,
    )  # fmt: skip
    return write_video(path, drawn, rate=rate, colours=_colours(recording))


def _captions(recording, rewards):
    legend = [
        (entry["name"], tuple(round(255 * x) for x in entry["colour"]))
        for entry in recording["legend"]
    ]
    count, dt = len(recording["centre"]), recording["dt"]
    returns = None if rewards is None else np.concatenate([[0.0], np.cumsum(rewards)])
    lines = [
        f"{place * dt:.1f} s" + ("" if returns is None else f"   return {returns[place]:,.0f}")
        for place in range(count)
    ]
    return Captions(recording["title"], legend, lines)


def _colours(recording):
    """What a GIF must have: agents, floor and sky."""
    agents = [tuple(round(255 * x) for x in entry["colour"]) for entry in recording["legend"]]
    return [*agents, *TILES, SKY]


def frames(
    model: mujoco.MjModel,
    partition: Partition,
    qpos: np.ndarray,
    *,
    recording: dict | None = None,
    stride: int = 1,
) -> Iterator[np.ndarray]:
    """RGB pictures [height, width, 3] (uint8) of every `stride`th of states qpos [time, nq].

    The camera follows the robot as the replay's does. recording: what `scene.record` made of the
    states, if that is there already.
    """
    if recording is None:
        recording = scene.record(model, qpos, partition.agents, dt=0.05, title="")
    width, height = SIZE
    model = _dressed(model, partition, recording["radius"])
    context = _context(width, height)
    context.make_current()
    try:
        drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
        world = mujoco.MjvScene(model, maxgeom=1000)
        world.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        data, options = mujoco.MjData(model), mujoco.MjvOption()
        camera, viewport = _camera(recording), mujoco.MjrRect(0, 0, width, height)
        picture = np.empty((height, width, 3), np.uint8)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        for time in range(0, len(qpos), stride):
            data.qpos[:] = qpos[time]
            mujoco.mj_forward(model, data)
            camera.lookat[:] = recording["centre"][time]
            mujoco.mjv_updateScene(model, data, options, None, camera, everything, world)
            mujoco.mjr_render(viewport, world, drawing)
            mujoco.mjr_readPixels(picture, None, viewport, drawing)
            yield picture[::-1].copy()
        drawing.free()
    finally:
        context.free()


def _dressed(model, partition, radius):
    """A copy of the model with its agents' colours, on the replay's floor under its light."""
    model = copy.copy(model)
    colours = scene.body_colours(model, partition.agents)
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom]:
            model.geom_rgba[geom] = [*colours[model.geom_bodyid[geom]], 1.0]
            model.geom_matid[geom] = -1
        elif model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
            _lay_floor(model, geom, radius)
    for texture in np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX):
        _pixels(model, texture)[:] = SKY
    look, light = model.vis, np.array(LIGHT)
    look.global_.offwidth, look.global_.offheight = SIZE
    look.global_.fovy = FIELD
    look.headlight.ambient[:], look.headlight.diffuse[:] = 0.5, 0.2
    look.headlight.specular[:] = 0.05
    # Without an accelerator these decide how long a picture takes.
    look.quality.shadowsize, look.quality.offsamples = 1024, 2
    look.map.shadowclip = max(1.0, 2.0 * radius / max(model.stat.extent, 1e-6))
    model.light_dir[:] = -light / np.linalg.norm(light)
    model.light_pos[:] = light * 2.0 * radius
    model.light_type[:] = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    model.light_diffuse[:], model.light_specular[:], model.light_ambient[:] = 0.45, 0.1, 0.0
    model.light_active[1:] = 0
    model.light_mode[:] = mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM
    return model


def _lay_floor(model, plane, radius):
    """Tiles without end in the replay's colours, or one colour where the floor has no image."""
    material = model.geom_matid[plane]
    image = -1 if material < 0 else model.mat_texid[material].max()
    model.geom_size[plane, :2] = 0.0
    model.geom_rgba[plane] = [*(np.array(TILES[0]) / 255), 1.0]
    if image < 0:
        model.geom_matid[plane] = -1
        return
    pixels = _pixels(model, image)
    rows, columns = (np.arange(size) * 2 // size for size in pixels.shape[:2])
    pixels[:] = np.array(TILES, np.uint8)[(rows[:, None] + columns) % 2]
    model.geom_rgba[plane] = 1.0
    model.mat_rgba[material] = 1.0
    model.mat_texuniform[material] = True
    model.mat_texrepeat[material] = 0.5 / scene.tile(radius)
    model.mat_reflectance[material] = model.mat_specular[material] = 0.0


def _pixels(model, texture):
    """The pixels [height, width, channel] of a model's texture, to be written to."""
    size = model.tex_height[texture], model.tex_width[texture], model.tex_nchannel[texture]
    start = model.tex_adr[texture]
    return model.tex_data[start : start + np.prod(size)].reshape(size)


def _camera(recording):
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.distance = 1.05 * recording["radius"] / np.sin(np.radians(FIELD / 2))
    camera.azimuth, camera.elevation = recording["view"]
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
