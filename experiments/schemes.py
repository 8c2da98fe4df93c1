"""What every way of sharing and every algorithm costs, beside MAPPO with full sharing.

    python -m experiments.speed schemes=all [env=ant_4x2] [any key of lorasa_jax.run]

Whole updates of the finished phase, in turns in one process, so that ratios hold on a busy
machine: each is the median over turns of a row's seconds to those of its base in the same turn.
A2PO and HAPPO take as many epochs as MAPPO; agents are grouped in pairs for SePS. Writes
experiments/results/schemes_<env>.{md,json}.
"""

import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.engines import RESULTS
from lorasa_jax import config as configuration
from lorasa_jax import envs, machine
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.training import phases

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
    "a2po ps, two stages": ("mappo ps", ["algo=a2po", "sharing=ps", TWO_STAGE]),
    "a2po ps_lora": ("mappo ps_lora", ["algo=a2po", "sharing=ps_lora", ONE_STAGE]),
    "a2po ps_lora, two stages": ("mappo ps_lora", ["algo=a2po", "sharing=ps_lora", TWO_STAGE]),
    "a2po nps": ("mappo nps", ["algo=a2po", "sharing=nps", ONE_STAGE]),
    "happo nps": ("mappo nps", ["algo=happo", "sharing=nps"]),
}


def updating(overrides: list[str]):
    """(a function that runs one update of the last phase, seconds of compilation)."""
    config = configuration.load(overrides)
    groups = config.sharing.get("clusters")
    teams = phases.build_teams(config, None if groups is None else tuple(groups))
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    for index in range(1, len(teams)):
        progress = jax.jit(lambda p, i=index: phases.switch(config, teams, i, p))(progress)
    began = time.perf_counter()
    phase = phases.compile_phase(config, len(teams) - 1, teams[-1], progress)
    compiling = time.perf_counter() - began
    box = [progress]

    def update():
        box[0] = jax.block_until_ready(phase.advance(box[0], jnp.int32(1)))

    return update, compiling


def measure(overrides: list[str], rows=tuple(ROWS)) -> dict:
    """Seconds an update, and ratios to each row's base, of the rows."""
    base = [x for x in overrides if not x.startswith(("algo=", "sharing="))]
    config = configuration.load([*base, "algo=mappo", "sharing=ps"])
    options = dict(config.env)
    agents = envs.make(options.pop("name"), **options).num_agents
    pairs = f"sharing.clusters={[i // 2 for i in range(agents)]}".replace(" ", "")
    epochs = f"algo.epochs={config.algo.epochs}"
    built = {}
    for name in rows:
        keys = [pairs if key == "PAIRS" else key for key in ROWS[name][1]]
        given = [] if any(x.startswith("algo.epochs=") for x in base) else [epochs]
        built[name] = updating([*base, *given, *keys])
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
        f"{result['device']}; jax {result['jax']}; medians of {TURNS} turns; load average "
        f"{result['load']:.1f}.", "",
        "| " + " | ".join(HEADERS) + " |",
        "|" + "---|" * len(HEADERS),
        *("| " + " | ".join(row) + " |" for row in cells(result["rows"])),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """arguments: `schemes=all` or rows of ROWS with commas, and keys of lorasa_jax.run."""
    chosen = next(x for x in arguments if x.startswith("schemes=")).partition("=")[2]
    rows = list(ROWS) if chosen == "all" else chosen.split(",")
    for name in rows:
        if name not in ROWS or ROWS[name][0] not in rows:
            raise ConfigError(
                f"schemes={name} is not known or lacks its base; choose from {', '.join(ROWS)}."
            )
    overrides = [x for x in arguments if not x.startswith("schemes=")]
    found = measure(overrides, tuple(rows))
    result = {
        "command": " ".join(["python -m experiments.speed", *arguments]),
        "device": machine.name(),
        "jax": jax.__version__,
        "load": os.getloadavg()[0],
        "rows": found,
    }
    name = next((x.partition("=")[2] for x in overrides if x.startswith("env=")), "ant_4x2")
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / f"schemes_{name}.json", json.dumps(result, indent=2) + "\n")
    write_atomically(RESULTS / f"schemes_{name}.md", markdown(result))
    table = Table(*HEADERS)
    for row in cells(found):
        table.add_row(*row)
    Console().print(table)
