"""Frames into a video file, with captions on them."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.files import replacing

SIZE = (1280, 720)  # pixels, width and height
MOST_FRAMES_PER_SECOND = 30.0
SHADES, GREYS = 9, 16  # of every colour that a GIF must have, and of grey
INK, PANEL = (33, 39, 46), (255, 255, 255, 205)

Colour = tuple[int, int, int]


def frame_stride(dt: float) -> tuple[int, float]:
    """(every how many steps of `dt` seconds a picture is taken, pictures per second)."""
    stride = max(1, round(1.0 / (dt * MOST_FRAMES_PER_SECOND)))
    return stride, 1.0 / (dt * stride)


class Captions:
    """A title and a legend in the upper left of pictures, and one line of text in the upper right.

    legend: names and colours; of many, the first that have room. lines [frame].
    """

    def __init__(self, title: str, legend: Sequence[tuple[str, Colour]], lines: Sequence[str]):
        from PIL import ImageFont

        path = _font()
        self.fonts = [ImageFont.truetype(path, size) for size in (24, 20)]
        self.lines = lines
        self.panel = self._panel(title, list(legend))

    def _panel(self, title, legend):
        """The picture of title and legend, which is the same in every frame."""
        from PIL import Image, ImageDraw

        large, small = self.fonts
        room = (SIZE[1] - 120) // 28
        more = len(legend) - room if len(legend) > room else 0
        names = [name for name, _ in legend[: room - bool(more)]]
        texts = [*names, f"and {more + 1} more"] if more else names
        wide = max([large.getlength(title), *(34 + small.getlength(text) for text in texts)])
        panel = Image.new("RGBA", (int(wide) + 36, 30 * bool(title) + 28 * len(texts) + 30))
        draw = ImageDraw.Draw(panel)
        draw.rounded_rectangle((0, 0, panel.width - 1, panel.height - 1), 12, fill=PANEL)
        draw.text((18, 10), title, fill=INK, font=large)
        for i, text in enumerate(texts):
            top = 14 + 32 * bool(title) + 28 * i
            if i < len(names):
                draw.rounded_rectangle((18, top + 4, 36, top + 20), 4, fill=legend[i][1])
            draw.text((48 if i < len(names) else 18, top), text, fill=INK, font=small)
        return panel

    def on(self, picture: np.ndarray, frame: int) -> np.ndarray:
        """A picture [height, width, 3] (uint8) with its captions."""
        from PIL import Image, ImageDraw

        image = Image.fromarray(picture).convert("RGBA")
        image.alpha_composite(self.panel, (20, 20))
        text, font = self.lines[frame], self.fonts[0]
        wide = int(font.getlength(text)) + 36
        box = Image.new("RGBA", (wide, 48))
        draw = ImageDraw.Draw(box)
        draw.rounded_rectangle((0, 0, wide - 1, 47), 12, fill=PANEL)
        draw.text((18, 9), text, fill=INK, font=font)
        image.alpha_composite(box, (image.width - wide - 20, 20))
        return np.asarray(image)[..., :3].copy()


def _font():
    """A font that is there wherever matplotlib is."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, rate: float, colours: Sequence[Colour] = ()
) -> Path:
    """Writes pictures [height, width, 3] (uint8) as .mp4 or .gif, whole or not at all.

    colours: those that a GIF, which has 256, must show well.
    """
    path = Path(path)
    with replacing(path) as part:
        if path.suffix == ".gif":
            _gif(part, frames, rate, colours)
        else:
            _mp4(part, frames, rate)
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


def _gif(path, frames, rate, colours):
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("a film as gif needs the package pillow; pip install pillow.") from error

    frames = iter(frames)
    first = next(frames)
    palette = _palette(first, colours) if colours else None
    undithered = Image.Dither.NONE  # which keeps still ground still, and files small

    def reduced(frame):
        image = Image.fromarray(frame)
        if palette is None:
            return image.quantize(128)
        return image.quantize(palette=palette, dither=undithered)

    reduced(first).save(
        path, save_all=True, append_images=map(reduced, frames), duration=round(1000 / rate),
        loop=0,
    )  # fmt: skip


def _palette(first, colours):
    """A palette of shades of the colours, of greys, and of what the first picture has most."""
    from PIL import Image

    shades = [
        np.clip(np.array(colour) * strength, 0, 255)
        for colour in list(colours)[: 192 // SHADES]
        for strength in np.linspace(0.4, 1.15, SHADES)
    ]
    shades += [np.full(3, level) for level in np.linspace(0, 255, GREYS)]
    rest = 256 - len(shades)
    found = Image.fromarray(first).quantize(rest).getpalette() or []
    values = [*np.array(shades, int).ravel().tolist(), *found][: 3 * 256]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*values, *([0] * (3 * 256 - len(values)))])
    return palette
