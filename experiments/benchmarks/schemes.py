"""What every way of sharing and every algorithm costs, beside MAPPO with full sharing.

    python -m experiments.speed schemes=all [env=ant_4x2] [any key of lorasa_jax.run]
        [out=outputs/schemes]

Whole updates of the finished phase, in turns in one process, so that ratios hold on a busy
machine: each is the median over turns of a row's seconds to those of its base in the same turn.
A2PO and HAPPO take as many epochs as MAPPO; agents are grouped in pairs for SePS. Writes
out/schemes_<env>.{md,json}.
"""

import os
import statistics
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import measurement
from lorasa_jax import config as configuration
from lorasa_jax import envs, keys
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

TURNS = 15
ONE_STAGE, TWO_STAGE = "algo.two_stage=false", "algo.two_stage=true"
# Row -> (its base, what tells it from the run's own keys).
ROWS = {
    "mappo ps": ("mappo ps", ["algo=mappo", "sharing=ps"]),
    "mappo mtl": ("mappo ps", ["algo=mappo", "sharing=mtl"]),
    "mappo seps": ("mappo ps", ["algo=mappo", "sharing=seps", "PAIRS"]),
    "mappo nps": ("mappo ps", ["algo=mappo", "sharing=nps"]),
    "mappo ps_lora": ("mappo ps", ["algo=mappo", "sharing=ps_lora"]),
    "mappo seps_lora": ("mappo ps", ["algo=mappo", "sharing=seps_lora", "PAIRS"]),
    "a2po ps": ("mappo ps", ["algo=a2po", "sharing=ps", ONE_STAGE]),
    "a2po ps two stages": ("mappo ps", ["algo=a2po", "sharing=ps", TWO_STAGE]),
    "a2po ps_lora": ("mappo ps_lora", ["algo=a2po", "sharing=ps_lora", ONE_STAGE]),
    "a2po ps_lora two stages": ("mappo ps_lora", ["algo=a2po", "sharing=ps_lora", TWO_STAGE]),
    "a2po nps": ("mappo nps", ["algo=a2po", "sharing=nps", ONE_STAGE]),
    "happo nps": ("mappo nps", ["algo=happo", "sharing=nps"]),
}


def updating(overrides: list[str]):
    """(a function that runs one update of the last phase, seconds of compilation)."""
    config = configuration.load(overrides)
    groups = config.sharing.get("clusters")
    teams = build_teams(config, None if groups is None else tuple(groups))
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    for index in range(1, len(teams)):
        progress = jax.jit(lambda p, i=index: phases.switch(config, teams, i, p))(progress)
    began = time.perf_counter()
    phase = compile_phase(config, len(teams) - 1, teams[-1], progress)
    compiling = time.perf_counter() - began
    box = [progress]

    def update():
        box[0] = jax.block_until_ready(phase.advance(box[0], jnp.int32(1)))

    return update, compiling


def shared(overrides: list[str]):
    """(what all rows have in common, the configuration of MAPPO with full sharing)."""
    base = [x for x in overrides if not x.startswith(("algo=", "sharing="))]
    return base, configuration.load([*base, "algo=mappo", "sharing=ps"])


def measure(overrides: list[str], rows=tuple(ROWS)) -> dict:
    """Seconds an update, and ratios to each row's base, of the rows."""
    base, config = shared(overrides)
    agents = envs.make(**config.env).num_agents
    pairs = f"sharing.clusters={[i // 2 for i in range(agents)]}".replace(" ", "")
    epochs = f"algo.epochs={config.algo.epochs}"
    built = {}
    for name in rows:
        words = [pairs if key == "PAIRS" else key for key in ROWS[name][1]]
        given = [] if any(x.startswith("algo.epochs=") for x in base) else [epochs]
        built[name] = updating([*base, *given, *words])
    took = {name: [] for name in rows}
    for turn in range(TURNS + 1):
        for name, (update, _) in built.items():
            began = time.perf_counter()
            update()
            if turn:  # the first warms up
                took[name].append(time.perf_counter() - began)
    return {
        name: {
            "base": ROWS[name][0],
            "update": statistics.median(took[name]),
            "ratio": float(np.median(np.array(took[name]) / np.array(took[ROWS[name][0]]))),
            "compile": built[name][1],
        }
        for name in rows
    }


HEADERS = ("update", "seconds", "ratio", "to", "compile s")


def cells(rows: dict) -> list[tuple[str, ...]]:
    return [
        (name, f"{row['update']:.3f}", f"{row['ratio']:.2f}", row["base"], f"{row['compile']:.1f}")
        for name, row in rows.items()
    ]


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}; medians of {TURNS} turns; load "
        f"average {result['load']:.1f}.", "",
        *measurement.table(HEADERS, cells(result["rows"])),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rows(text, key):
    rows = list(ROWS) if text == "all" else text.split(",")
    for name in rows:
        if name not in ROWS or ROWS[name][0] not in rows:
            raise ConfigError(
                f"{key}={name} is not known or lacks its base; choose from {', '.join(ROWS)}."
            )
    return text


@dataclass(frozen=True)
class Options:
    """What is measured, and where it is written."""

    schemes: str = keys.key(
        "all",
        "rows of the table",
        check=_rows,
        accepts="all, or names with commas: " + ", ".join(ROWS),
    )
    out: str = keys.key("outputs/schemes", measurement.OUT)


def main(arguments: list[str]) -> None:
    """`python -m experiments.speed schemes=...`."""
    usage = "python -m experiments.speed schemes=ROWS KEY=VALUE ..."
    options, overrides = measurement.parse_known(Options, arguments, usage)
    name = f"schemes_{shared(overrides)[1].env['name']}"
    out = measurement.folder(options.out)
    names = ROWS if options.schemes == "all" else measurement.names(options.schemes)
    rows = measure(overrides, tuple(names))
    result = measurement.described("speed", arguments, "jax")
    result |= {"load": os.getloadavg()[0], "rows": rows}
    paths = measurement.write(out, name, result, markdown(result))
    table = Table(*HEADERS)
    for row in cells(rows):
        table.add_row(*row)
    Console().print(table)
    print(*paths, sep="\n")
