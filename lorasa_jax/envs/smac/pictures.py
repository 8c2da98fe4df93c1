"""Battles as videos: discs in team colours shaded per unit, bars of health, lines of fire.

Upstream's visualiser knows neither shields, energy nor healing, and plays every tick anew from
keys and actions that a recorded episode does not hold; so this draws recorded states itself, with
upstream's discs, those of SMAX's maps too.
"""

import colorsys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lorasa_jax.envs.smac.scene import Scene
from lorasa_jax.envs.video import write_video

PIXELS, TITLE = 22, 38  # per map unit; the height of the title
RATE = 6.0  # steps shown per second: three times as fast as the game
MARGIN = 1.5
HUES = (0.58, 0.03)  # of allies and of enemies
SHOT, HEAL, SHIELD, ENERGY = "#f2c14e", "#3fb950", "#6cb6ff", "#c58cff"


def colours(scene: Scene) -> list[str]:
    """A colour [unit] as #rrggbb: the team's hue, shaded from its first unit to its last."""
    counts = scene.num_allies, len(scene.units) - scene.num_allies
    shades = []
    for count, hue in zip(counts, HUES, strict=True):
        for share in np.linspace(0.0, 1.0, count) if count > 1 else (0.5,):
            rgb = colorsys.hls_to_rgb((hue + 0.09 * (share - 0.5)) % 1, 0.36 + 0.3 * share, 0.62)
            shades.append("#" + "".join(f"{round(255 * value):02x}" for value in rgb))
    return shades


def film(scene: Scene, path: Path) -> Path:
    """Writes the battle as .mp4 or .gif, one picture per step."""
    return write_video(path, frames(scene), rate=RATE)


def frames(scene: Scene) -> Iterator[np.ndarray]:
    """Pictures [height, width, 3] (uint8), one per state; both sizes are even, as videos need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = (
        PIXELS * round(high - low + 2 * MARGIN)
        for low, high in zip(scene.low, scene.high, strict=True)
    )
    size = width / 100, (height + TITLE) / 100
    # matplotlib's types forget "none".
    figure = Figure(figsize=size, dpi=100, layout="none")  # pyright: ignore[reportArgumentType]
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, height / (height + TITLE)))
    shades = colours(scene)
    for time in range(len(scene.step)):
        axes.clear()
        _draw(axes, scene, shades, time)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(axes, scene, shades, time):
    from matplotlib.patches import Circle

    axes.set(
        xlim=(scene.low[0] - MARGIN, scene.high[0] + MARGIN),
        ylim=(scene.low[1] - MARGIN, scene.high[1] + MARGIN),
        xticks=[], yticks=[], aspect="equal", facecolor="#eef1f4",
    )  # fmt: skip
    alive, places, acts = scene.alive[time], scene.places[time], scene.acts[time]
    axes.set_title(
        f"{scene.name}   step {int(scene.step[time])}   "
        f"{int(alive[: scene.num_allies].sum())} against {int(alive[scene.num_allies :].sum())}",
        fontsize=10,
    )
    for i in np.flatnonzero(acts >= 0):
        (x, y), (to_x, to_y) = places[i], places[acts[i]]
        colour = HEAL if scene.units[i].healer else SHOT
        axes.plot([x, to_x], [y, to_y], color=colour, linewidth=1.6, zorder=3)
    # Those in the air are drawn above the others.
    order = sorted(np.flatnonzero(alive), key=lambda i: scene.units[i].layer == "air")
    for level, i in enumerate(order, start=4):
        (x, y), radius = places[i], scene.units[i].radius
        axes.add_patch(Circle((x, y), radius, color=shades[i], zorder=level))
        axes.text(x, y, scene.units[i].letter, color="white", ha="center", va="center",
                  fontsize=7, zorder=level)  # fmt: skip
        above, half = y + radius + 0.1, max(radius, 0.4)
        for shares, colour in ((scene.health, HEAL), (scene.shields, SHIELD),
                               (scene.energy, ENERGY)):  # fmt: skip
            share = shares[time, i]
            if np.isnan(share):
                continue
            end = x - half + 2 * half * float(np.clip(share, 0.0, 1.0))
            axes.plot([x - half, x + half], [above] * 2, color="#c9ced4", linewidth=2, zorder=level)
            axes.plot([x - half, end], [above] * 2, color=colour, linewidth=2, zorder=level)
            above += 0.18
