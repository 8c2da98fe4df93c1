"""Battles as videos: discs in team colours shaded per unit, bars of health, lines of fire.

Upstream's visualiser knows neither shields, energy nor healing, rebuilds its own states from keys
that a recorded episode does not have, and plays every tick; so this draws recorded states itself.
"""

import colorsys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lorasa_jax.envs.smac.simulation import Battle, BattleState
from lorasa_jax.envs.smac.units import ENERGY_FULL
from lorasa_jax.video import write_video

SIZE = (8.0, 4.6)  # inches at 100 pixels each
RATE = 6.0  # steps shown per second: three times as fast as the game
MARGIN = 1.5
HUES = (0.58, 0.03)  # of allies and of enemies
SHOT, HEAL, SHIELD, ENERGY = "#f2c14e", "#3fb950", "#6cb6ff", "#c58cff"


def colours(battle: Battle) -> list[str]:
    """A colour [unit] as #rrggbb: the team's hue, shaded from its first unit to its last."""
    found = []
    for count, hue in zip((battle.num_allies, battle.num_enemies), HUES, strict=True):
        for share in np.linspace(0.0, 1.0, count) if count > 1 else (0.5,):
            rgb = colorsys.hls_to_rgb((hue + 0.09 * (share - 0.5)) % 1, 0.36 + 0.3 * share, 0.62)
            found.append("#" + "".join(f"{round(255 * value):02x}" for value in rgb))
    return found


def bars(battle: Battle, states: BattleState) -> dict[str, np.ndarray]:
    """Shares [time, unit] of health, shields and energy; NaN where a unit has none."""
    roster = battle.roster
    shields = np.where(roster.shields > 0, roster.shields, np.nan)
    energy = np.where(roster.healer, states.unit_energy / ENERGY_FULL, np.nan)
    return {
        "health": states.unit_health / roster.health,
        "shields": states.unit_shields / shields,
        "energy": energy,
    }


def film(battle: Battle, states: BattleState, path: Path) -> Path:
    """Writes states [time, ...] as .mp4 or .gif, one picture per step."""
    return write_video(path, frames(battle, states), rate=RATE)


def frames(battle: Battle, states: BattleState) -> Iterator[np.ndarray]:
    """Pictures [height, width, 3] (uint8) of states [time, ...]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.92))
    shades, shares = colours(battle), bars(battle, states)
    for time in range(len(states.step)):
        axes.clear()
        _draw(axes, battle, states, shares, shades, time)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(axes, battle, states, shares, shades, time):
    from matplotlib.patches import Circle

    rules, roster, units = battle.rules, battle.roster, battle.battle.units
    axes.set(
        xlim=(rules.low[0] - MARGIN, rules.high[0] + MARGIN),
        ylim=(rules.low[1] - MARGIN, rules.high[1] + MARGIN),
        xticks=[], yticks=[], aspect="equal", facecolor="#eef1f4",
    )  # fmt: skip
    alive, places = states.unit_alive[time], states.unit_positions[time]
    axes.set_title(
        f"{battle.battle.name}   step {int(states.step[time])}   "
        f"{int(alive[: battle.num_allies].sum())} against {int(alive[battle.num_allies :].sum())}",
        fontsize=10,
    )
    for i in np.flatnonzero(states.unit_acted[time]):
        (x, y), (to_x, to_y) = places[i], places[states.unit_targets[time, i]]
        colour = HEAL if roster.healer[i] else SHOT
        axes.plot([x, to_x], [y, to_y], color=colour, linewidth=1.6, zorder=3)
    # Those in the air are drawn above the others.
    order = sorted(np.flatnonzero(alive), key=lambda i: units[i].layer == "air")
    for level, i in enumerate(order, start=4):
        (x, y), radius = places[i], roster.radius[i]
        axes.add_patch(Circle((x, y), radius, color=shades[i], zorder=level))
        axes.text(x, y, units[i].letter, color="white", ha="center", va="center", fontsize=7,
                  zorder=level)  # fmt: skip
        above, half = y + radius + 0.1, max(radius, 0.4)
        for name, colour in (("health", HEAL), ("shields", SHIELD), ("energy", ENERGY)):
            share = shares[name][time, i]
            if np.isnan(share):
                continue
            end = x - half + 2 * half * float(np.clip(share, 0.0, 1.0))
            axes.plot([x - half, x + half], [above] * 2, color="#c9ced4", linewidth=2, zorder=level)
            axes.plot([x - half, end], [above] * 2, color=colour, linewidth=2, zorder=level)
            above += 0.18
