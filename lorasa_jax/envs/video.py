"""Frames into a video file."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.files import replacing

MOST_FRAMES_PER_SECOND = 30.0


def frame_stride(dt: float) -> tuple[int, float]:
    """(every how many steps of `dt` seconds a picture is taken, pictures per second)."""
    stride = max(1, round(1.0 / (dt * MOST_FRAMES_PER_SECOND)))
    return stride, 1.0 / (dt * stride)


def write_video(path: Path, frames: Iterable[np.ndarray], *, rate: float) -> Path:
    """Writes pictures [height, width, 3] (uint8) as .mp4 or .gif, whole or not at all."""
    path = Path(path)
    writer = _gif if path.suffix == ".gif" else _mp4
    with replacing(path) as part:
        writer(part, frames, rate)
    return path


def _mp4(path, frames, rate):
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"a film as mp4 needs the package imageio-ffmpeg and its ffmpeg "
            f"({str(error).splitlines()[0]}); pip install imageio-ffmpeg, or give format=gif."
        ) from error
    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=rate, quality=7, macro_block_size=2
    )
    with warnings.catch_warnings():  # JAX warns of every process that is started beside it
        warnings.filterwarnings("ignore", message=r"os\.fork")
        writer.send(None)
        writer.send(np.ascontiguousarray(first))
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _gif(path, frames, rate):
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("a film as gif needs the package pillow; pip install pillow.") from error

    images = [Image.fromarray(frame).quantize(64) for frame in frames]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=round(1000 / rate), loop=0
    )
