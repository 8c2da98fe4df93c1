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
from lorasa_jax.envs.video import SIZE, Captions, Colour, write_video

GROUND = "#e8edf3"  # the replays' background
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


def film(scene: Scene, path: Path, *, rewards=None, title: str = "") -> Path:
    """Writes the battle as .mp4 or .gif, one picture per step.

    rewards [time]: what each step paid; without them no return is shown.
    """
    shades = [_rgb(shade) for shade in colours(scene)]
    marks = [_rgb(mark) for mark in (SHOT, HEAL, SHIELD)]
    captions = Captions(title or scene.name, _legend(scene, shades), _lines(scene, rewards))
    drawn = (captions.on(picture, time) for time, picture in enumerate(frames(scene)))
    return write_video(path, drawn, rate=RATE, colours=[*marks, *shades])


def _rgb(code: str) -> Colour:
    red, green, blue = (int(code[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def _legend(scene, shades):
    """Every agent in its colour, and the enemies in their first one's."""
    allies = list(zip(scene.agents, shades, strict=False))
    return [*allies, ("enemies", shades[scene.num_allies])]


def _lines(scene, rewards):
    returns = None if rewards is None else np.concatenate([[0.0], np.cumsum(rewards)])
    lines = []
    for time, alive in enumerate(scene.alive):
        ours, theirs = (int(x.sum()) for x in np.split(alive, [scene.num_allies]))
        text = f"step {int(scene.step[time])}   {ours} against {theirs}"
        lines.append(text if returns is None else f"{text}   return {returns[time]:,.1f}")
    return lines


def frames(scene: Scene) -> Iterator[np.ndarray]:
    """Pictures [height, width, 3] (uint8), one per state, of the SIZE of all films."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = SIZE[0] / 100, SIZE[1] / 100
    figure = Figure(size, 100, facecolor=GROUND)
    figure.set_layout_engine("none")  # whatever matplotlib's settings are
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
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
        xticks=[], yticks=[], aspect="equal", facecolor=GROUND,
    )  # fmt: skip
    alive, places, acts = scene.alive[time], scene.places[time], scene.acts[time]
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
