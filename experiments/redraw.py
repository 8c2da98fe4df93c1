"""Makes kept figures and tables anew from their kept numbers, without training or playing.

    python -m experiments.redraw [FOLDER ...] [out=DIR]

Each FOLDER, by default all of experiments/results, has the CSV of figure_2, tables_10_13,
specialisation or figure_3, whose first line is the command that made it. Its other tables and its
pictures are written anew, into the folder itself or into DIR/<its name>.
The documentation's pictures are links to them.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from experiments import command, comparison, figure_3, pictures, specialisation, tables_10_13
from experiments.cells import Cell, Request
from experiments.keep import RESULTS
from experiments.learning import Learned
from lorasa_jax import sharing
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.values import whole_number


def folders() -> list[Path]:
    """The kept figures that can be made anew."""
    return sorted({path.parent for name in DRAWN for path in RESULTS.glob(f"*/{name}.csv")})


def redraw(folder: Path, out: Path) -> list[Path]:
    """Writes a kept figure's tables and pictures into `out`; returns their paths.

    Raises:
      ConfigError: the folder has no CSV of a figure that can be made anew.
    """
    for name, draw in DRAWN.items():
        path = folder / f"{name}.csv"
        if path.exists():
            rows = pictures.read_rows(path)
            return draw(request_of(path, out), rows)
    raise ConfigError(f"{folder} has none of {', '.join(f'{name}.csv' for name in DRAWN)}.")


def request_of(path: Path, out: Path) -> Request:
    """A request as the one that made a CSV, of which only the words are known."""
    made_by = path.read_text().splitlines()[0].removeprefix("# ")
    words = dict(word.split("=", 1) for word in made_by.split() if "=" in word)
    options = {"last": words.get("last", "5"), "switch_at": words.get("switch_at", "")}
    options["folder"] = str(path.parent)
    return Request(path.stem, (), 0, (), options, Path(), out, False, made_by)


def _curves(request, rows):
    learned = [_learned(request, list(cell)) for cell in _cells(rows)]
    return comparison.figure_of(request, learned)


def _cells(rows):
    """The rows of every cell, in the order of their first ones."""
    cells: dict[tuple, list] = {}
    for row in rows:
        cells.setdefault((row["env"], row["algo"], row["sharing"], row["keys"]), []).append(row)
    return cells.values()


def _learned(request, rows):
    """Of one cell's rows, as `learning.read` has it of its run."""
    first = rows[0]
    seeds = list(dict.fromkeys(int(row["seed"]) for row in rows))
    steps = np.array(sorted({int(row["env_steps"]) for row in rows}))
    table = {(int(row["seed"]), int(row["env_steps"])): row for row in rows}

    def values(key):
        return np.array([[float(table[seed, step][key]) for step in steps] for seed in seeds])

    cell = Cell(first["env"], first["algo"], first["sharing"], tuple(first["keys"].split()))
    several = len(sharing.REGISTRY.row(cell.sharing).phases) > 1
    switch = request.options["switch_at"] if several else ""
    return Learned(
        cell, tuple(seeds), steps, values("return"),
        values("win_rate") if first["win_rate"] else None,
        ((whole_number(switch, "switch_at"), "adapters"),) if switch else (),
    )  # fmt: skip


@pictures.styled
def _norms(request, rows):
    rows = [{**row, **{k: float(row[k]) for k in ("shared", "merged", "delta")}} for row in rows]
    path = request.out / "tables_10_13.md"
    request.out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, tables_10_13.markdown(request, rows))
    return [path, *pictures.save(request, tables_10_13.picture(rows))]


@pictures.styled
def _exchanges(request, rows):
    rows = [
        {
            **row, "seed": int(row["seed"]), "return": float(row["return"]),
            "win_rate": float(row["win_rate"]) if row["win_rate"] else "",
        }
        for row in rows
    ]  # fmt: skip
    subjects = [_subject(list(cell)) for cell in _cells(rows)]
    path = request.out / "specialisation.md"
    request.out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, specialisation.markdown(request, subjects, rows))
    return [path, *pictures.save(request, specialisation.picture(subjects, rows))]


def _subject(rows):
    """What drawing needs of a run: names and seeds."""
    columns = {key: rows[0][key] for key in ("env", "algo", "sharing", "keys")}
    return SimpleNamespace(
        **columns, columns=lambda: columns, seeds=tuple(dict.fromkeys(r["seed"] for r in rows)),
        name="_".join(part for part in columns.values() if part),
    )  # fmt: skip


@pictures.styled
def _costs(request, rows):
    names = ("agents", "actor_trained")
    counted = [{**row, **{k: int(row[k]) for k in names}} for row in rows]
    counted = [row for row in counted if row["sizes"] == "own"]
    path = Path(request.options["folder"]) / "figure_3_measured.csv"
    names = ("update_seconds", "acting_seconds", "update_mib")
    measured = pictures.read_rows(path) if path.exists() else []
    measured = [{**row, **{k: float(row[k]) for k in names}} for row in measured]
    return pictures.save(request, figure_3.picture(counted, measured))


DRAWN = {
    "figure_2": _curves, "tables_10_13": _norms, "specialisation": _exchanges, "figure_3": _costs,
}  # fmt: skip


def main(arguments: list[str]) -> None:
    given = [Path(word) for word in arguments if "=" not in word]
    out = dict(word.split("=", 1) for word in arguments if "=" in word)
    if set(out) - {"out"}:
        raise ConfigError(f"unknown key {min(set(out) - {'out'})}; redraw knows out.")
    for folder in given or folders():
        place = Path(out["out"], folder.name) if out else folder
        pictures.print_paths(redraw(folder, place))


if __name__ == "__main__":
    command.run(main)
