"""How figures look and how they are kept: CSV, PNG and SVG, each with the command inside."""

import csv
import io
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from experiments.cells import Request
from lorasa_jax import sharing
from lorasa_jax.envs.mamujoco.replay.scene import palette
from lorasa_jax.files import write_atomically

NAMES = {
    "ps": "PS", "nps": "NPS", "seps": "SePS", "mtl": "MTL",
    "ps_lora": "PS+LoRA", "seps_lora": "SePS+LoRA",
}  # fmt: skip
# Places in the palette: adapters are red, what they are compared with is cooler.
_COLOURS = {"ps": 0, "nps": 1, "seps": 2, "mtl": 3, "ps_lora": 5, "seps_lora": 7}
_OTHERS = (4, 6)
STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lorasa_jax",
    "figure.constrained_layout.use": True,
}
# Decorates functions that draw: STYLE inside, matplotlib's settings as they were outside.
styled = plt.rc_context(STYLE)


def name_of(scheme: str) -> str:
    """A way of sharing as the paper writes it."""
    return NAMES.get(scheme, scheme)


def colour_of(scheme: str):
    """The colour [3] that a way of sharing has in every figure; registered ones take turns."""
    registered = [row.name for row in sharing.REGISTRY.outside()]
    place = registered.index(scheme) % len(_OTHERS) if scheme in registered else 0
    return palette(8)[_COLOURS.get(scheme, _OTHERS[place])]


def figure(rows: int, columns: int, width: float = 2.6, height: float = 2.1, **options):
    """(figure, axes [rows, columns]); sizes in inches of one panel. Called by what is `styled`."""
    size = width * columns, height * rows
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def caption(drawn, text: str) -> None:
    """Writes below a figure what it shows and of how many; as wide as the figure."""
    wide = int(drawn.get_figwidth() * 72 / 4.0)  # letters of 7 points
    lines = [line for part in text.split("\n") for line in textwrap.wrap(part, wide)]
    drawn.supxlabel("\n".join(lines), fontsize=7, x=0.01, ha="left", color="0.35")


def steps(count: float) -> str:
    """A number of environment steps, in short: 2M, 1.5M, 300k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:g}"


def save(request: Request, drawn, name: str | None = None) -> list[Path]:
    """Writes a matplotlib figure as PNG and SVG, the command among their metadata."""
    request.out.mkdir(parents=True, exist_ok=True)
    paths = [request.out / f"{name or request.figure}.{kind}" for kind in ("png", "svg")]
    about = {"Description": request.command}
    drawn.savefig(paths[0], dpi=150, metadata=about)
    drawn.savefig(paths[1], metadata={**about, "Date": None, "Creator": None})
    plt.close(drawn)
    return paths


def write_rows(request: Request, rows: list[dict], name: str | None = None) -> Path:
    """Writes rows of equal keys as CSV whose first line, a comment, is the command."""
    request.out.mkdir(parents=True, exist_ok=True)
    path = request.out / f"{name or request.figure}.csv"
    text = io.StringIO()
    text.write(f"# {request.command}\n")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV that `write_rows` wrote."""
    with Path(path).open() as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def print_paths(paths) -> None:
    for path in paths:
        print(path)
