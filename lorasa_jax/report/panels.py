"""The report's charts: numbers in, SVG out, for a page that is light or dark.

A chart has no background, and its colours are CSS variables of the page. Cells of a map are one
blue at the strength of their value. Lengths are CSS pixels at a chart's natural width.
"""

import io
import re
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from lorasa_jax.analysis.curves import limits
from lorasa_jax.envs.mamujoco.replay.scene import palette

NARROW, HALF, WIDE = 340, 450, 940
TEXT = 14
BLUE, ORANGE = "#0072b2", "#d55e00"
# Colours that stand for the page's own until the SVG is written.
_INK, _QUIET, _LINE = "#010203", "#040506", "#070809"
_VARIABLES = {_INK: "var(--ink)", _QUIET: "var(--quiet)", _LINE: "var(--line)"}
_RULES: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "image.composite_image": False,
    "font.size": TEXT, "text.color": _INK, "axes.edgecolor": _LINE, "xtick.color": _QUIET,
    "ytick.color": _QUIET, "axes.labelcolor": _QUIET, "text.parse_math": False,
}  # fmt: skip


def curves(runs: list[dict], score: str, colours: list[str], *, width: int = NARROW) -> str:
    """Learning curves of runs [run]: the mean over seeds, its interval, and where phases begin.

    runs: for every run `steps`, `phases` (step and name) and, under the name of the score, what
    `learning.learning` says of it. Where there are too few seeds for an interval, each of them is a
    line of points. A dashed line is the level of an untrained team, from which the axis begins.
    """
    height = round(90 + 0.25 * width if width > NARROW else 0.72 * width)
    with matplotlib.rc_context(_RULES):
        figure = Figure(figsize=(width / 72, height / 72))
        left, bottom = 50, 46
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + 14) / width,
                                1 - (bottom + 24) / height))  # fmt: skip
        for run, colour in zip(runs, colours, strict=True):
            _one_curve(axes, run["steps"], run[score], colour)
        _range(axes, [run[score] for run in runs], score)
        _switches(axes, runs, colours)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y", color=_LINE, lw=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(width // 85))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(_ticks(score, axes.get_ylim()))
        axes.set_xlabel("environment steps", loc="right")
        return svg(figure, f"{score.replace('_', ' ')} over environment steps")


def _one_curve(axes, steps, values, colour):
    if values["low"] is None:
        for seed in values["seeds"]:
            axes.plot(steps, np.array(seed, float), ".-", color=colour, lw=0.8, ms=4, alpha=0.6)
        if len(values["seeds"]) == 1:
            return
    else:
        low, high = (np.array(values[side], float) for side in ("low", "high"))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
    axes.plot(steps, np.array(values["mean"], float), color=colour, lw=2, solid_capstyle="round")


def _range(axes, shown, score):
    """The axis, and where it begins: at what an untrained team earns, or at nothing."""
    if score == "win_rate":
        axes.set_ylim(-0.03, 1.03)
        return
    values = np.concatenate([np.ravel(np.array(one["seeds"], float)) for one in shown])
    if score == "action_std":
        axes.set_ylim(0.0, 1.05 * np.nanmax(values))
        return
    known = [one["reference"] for one in shown if one["reference"] is not None]
    reference = float(np.mean(known)) if known else None
    axes.set_ylim(*limits(reference, values))
    if reference is not None:
        axes.axhline(reference, color=_QUIET, ls=(0, (1, 2)), lw=1, gid="untrained")
        axes.annotate(
            "untrained", (1.0, reference), xycoords=("axes fraction", "data"), va="bottom",
            ha="right", color=_QUIET,
        )  # fmt: skip


def _ticks(score, ends):
    """How numbers are written at the axis of a score."""
    if score == "win_rate":
        return PercentFormatter(1.0)
    return EngFormatter(sep="") if max(map(abs, ends)) >= 1e4 else "{x:,.6g}"


def _switches(axes, runs, colours):
    """Dashed lines where phases begin: one set for all runs, or each run's in its colour."""
    phased = [(i, tuple(map(tuple, run["phases"]))) for i, run in enumerate(runs) if run["phases"]]
    same = len({phases for _, phases in phased}) == 1
    for i, phases in phased:
        for number, (step, _) in enumerate(phases):
            part = "" if len(phases) == 1 else f"-{number}"
            axes.axvline(step, color=_QUIET if same else colours[i], ls=(0, (4, 4)),
                         lw=1, gid=f"switch-{i}{part}")  # fmt: skip
    names = {name for _, phases in phased for _, name in phases}
    last = max((step for _, phases in phased for step, _ in phases), default=0)
    labels = [(last, f"{names.pop()} begins" if len(names) == 1 else "phases begin")]
    for step, name in (phased[0][1] if same else labels) if phased else ():
        right = axes.transLimits.transform((step, 0))[0] > 0.6
        axes.annotate(
            name, (step, 1.02), xycoords=("data", "axes fraction"), color=_QUIET, va="bottom",
            ha="right" if right else "left",
        )  # fmt: skip


def cells(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    *,
    row_colours: list[str],
    column_colours: list[str] | None = None,
    scale: str,
    label: str,
    cell_height: float | None = None,
    width: int = NARROW,
) -> str:
    """A map of values [row, column]; rows are agents, with a swatch of their colour.

    Values above 0 are blue, and values below it, if there are any, orange.

    Numbers are written where they fit; of names that are too many, only some. Columns without
    names are counted. scale: what the values are; cell_height: square cells by default.
    """
    values = np.asarray(values, float)
    left = min(26 + max(_text_width(row) for row in rows), 0.45 * width)
    cell = (width - left - 2) / values.shape[1]
    cell = cell if cell_height else min(cell, 60)
    row_height = cell_height or cell
    upright = bool(columns) and max(map(_text_width, columns)) + 6 > cell
    foot = 22 if not upright else 12 + max(map(_text_width, columns))
    foot += 14 * bool(column_colours)
    bottom = row_height * len(values)
    height = bottom + foot + 34
    largest = np.abs(values).max(initial=0.0)
    with matplotlib.rc_context(_RULES):
        figure, axes = _sheet(width, height)
        right = left + cell * values.shape[1]
        _strengths(axes, values / (largest or 1.0), (left, right, bottom, 0))
        for i, (row, colour) in enumerate(zip(rows, row_colours, strict=True)):
            y = (i + 0.5) * row_height
            side = min(10, 0.8 * row_height)
            axes.add_patch(Rectangle((2, y - side / 2), 10, side, color=colour, lw=0))
            if i % int(np.ceil(17 / row_height)) == 0:
                axes.text(18, y, row, va="center", color=_INK)
        for j, colour in enumerate(column_colours or ()):
            side = min(10, 0.8 * cell)
            x = left + (j + 0.5) * cell - side / 2
            axes.add_patch(Rectangle((x, bottom + 6), side, 10, color=colour, lw=0))
        top = bottom + 6 + 14 * bool(column_colours)
        for j in range(0, len(columns), int(np.ceil(17 / cell)) if upright else 1):
            axes.text(left + (j + 0.5) * cell, top, columns[j], ha="center", va="top",
                      rotation=90 if upright else 0, color=_INK)  # fmt: skip
        if not columns:
            for x, number, side in ((left, 1, "left"), (right, values.shape[1], "right")):
                axes.text(x, top - 2, str(number), ha=side, va="top", color=_QUIET)
            axes.text((left + right) / 2, top - 2, "unit", ha="center", va="top", color=_QUIET)
        if cell >= 38 and row_height >= 20:
            _write(axes, values, largest, left, cell, row_height)
        _scale(axes, left, height - 12, largest, scale, signed=bool((values < 0).any()))
        return svg(figure, label)


def _sheet(width, height):
    """A figure whose one set of axes counts pixels from the top left corner."""
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure, axes


def _strengths(axes, shares, extent):
    """Shares [row, column] of 1 as a picture in strengths of blue, and of orange below 0."""
    picture = np.broadcast_to([*to_rgb(BLUE), 1.0], (*shares.shape, 4)).copy()
    picture[shares < 0, :3] = to_rgb(ORANGE)
    picture[..., 3] = np.clip(np.abs(shares), 0, 1)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="none")
    axes.set(xlim=limits[0], ylim=limits[1])


def _write(axes, values, largest, left, cell, row_height):
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2
    for (i, j), value in np.ndenumerate(values):
        strong = value > 0.55 * largest
        x, y = left + (j + 0.5) * cell, (i + 0.5) * row_height
        colour = "white" if strong else _INK
        axes.text(x, y, f"{value:.{digits}f}", ha="center", va="center", color=colour)


def _scale(axes, left, y, largest, label, signed):
    """The least value, a strip in all strengths, the largest value, and what is measured."""
    least = f"-{largest:.3g}" if signed else "0"
    axes.text(left, y, least, va="center", color=_QUIET)
    start = left + _text_width(least) + 4
    strip = np.linspace(-1 if signed else 0, 1, 64)[None]
    _strengths(axes, strip, (start, start + 60, y + 5, y - 5))
    axes.text(start + 66, y, f"{largest:.3g}  {label}", va="center", color=_QUIET)


def _text_width(text):
    """About how wide a text is (px)."""
    return 0.6 * TEXT * len(text)


def svg(figure: Figure, label: str) -> str:
    """A figure as an element of a page, in the page's colours."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, dpi=72)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for waste in (
        r"<metadata>.*?</metadata>",
        r"<style.*?</style>",
        r"<!--.*?-->",
        r' xmlns\S*=".*?"',
    ):
        text = re.sub(waste, "", text, flags=re.S)
    text = text.replace("xlink:href", "href")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width, height = (72 * size for size in figure.get_size_inches())
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width:.5g} {height:.5g}" style="max-width: {1.2 * width:.5g}px">'
    )
    return re.sub(r"\s*\n\s*", "\n", head + text[text.index(">") + 1 :])


def unique(text: str, prefix: str) -> str:
    """An SVG whose ids begin with `prefix`, so that several can stand in one page."""
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", text)


def run_colours(count: int) -> list[str]:
    """A colour for every run of a comparison."""
    return [to_hex(colour) for colour in palette(count)]
