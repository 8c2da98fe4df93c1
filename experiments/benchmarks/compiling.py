"""What compiling costs, part by part: the environment alone, and a training phase of MAPPO.

    python -m experiments.speed compiling=smax_3s5z,smax_smacv2_5_units
        [any key of lorasa_jax.run but env] [repeats=1] [name=compiling] [out=outputs/compiling]

For 64 environments' reset and step, and a phase's `advance` (an update, played and learnt) and
`play` (its evaluation): seconds of this process's CPUs for tracing and for XLA, the least of so
many repeats, which a busy machine lengthens less than time on the clock; operations traced, also as
they would be for CUDA; instructions that XLA made of them, fused ones included. Writes
out/<name>.{md,json}.
"""

import os
import re
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from experiments import measurement
from lorasa_jax import config as configuration
from lorasa_jax import envs, keys
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import phases
from lorasa_jax.training.numbers import lanes_of, over_lanes
from lorasa_jax.training.teams import build_teams

NUM_ENVS = 64
TRACED = re.compile(r"^ *(%|\"?stablehlo|return)", re.M)
COMPILED = re.compile(r"^ +(ROOT )?%?[\w.-]+ = ", re.M)


def compiled(function, *arguments) -> dict[str, float]:
    """What compiling function(*arguments) costs; both may be shapes. Nothing is kept of it."""
    jax.clear_caches()
    began = time.process_time()
    lowered = jax.jit(function).lower(*arguments)
    traced = time.process_time()
    program = lowered.compile()
    ended = time.process_time()
    cuda = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",))
    return {
        "trace": traced - began,
        "compile": ended - traced,
        "operations": len(TRACED.findall(lowered.as_text())),
        "operations for CUDA": len(TRACED.findall(cuda.as_text())),
        "instructions": len(COMPILED.findall(program.as_text())),
    }


def parts(name: str, overrides: list[str], repeats: int = 1) -> dict[str, dict[str, float]]:
    """{part: what it costs} of one environment and a training's first phase on it."""
    config = configuration.load([f"env={name}", *overrides])
    team, lanes = build_teams(config)[0], lanes_of([config])
    env = team.env
    seeds = jax.random.split(jax.random.key(0), NUM_ENVS)
    state, _ = jax.eval_shape(jax.vmap(env.reset), seeds)
    if isinstance(env.action_space, envs.Discrete):
        actions = jnp.zeros((NUM_ENVS, env.num_agents), int)
    else:
        actions = jnp.zeros((NUM_ENVS, env.num_agents, env.action_space.size))
    progress = jax.eval_shape(lambda: phases.begin(config, team))
    n = jnp.zeros((), jnp.int32)

    def advance(progress, lane, n):
        return phases.trained(config, 0, team, lane.numbers, progress, n)

    def play(policy, lane, update):
        return phases.evaluated(config, team, policy, jax.random.key(lane.seeds), update)

    each = (0, 0, None)
    programs = {
        "reset": (jax.vmap(env.reset), seeds),
        "step": (jax.vmap(env.step), seeds, state, actions),
        "advance": (over_lanes(advance, each), progress, lanes, n),
        "play": (over_lanes(play, each), phases.finished(progress, team), lanes, n),
    }
    return {
        part: least([compiled(*program) for _ in range(repeats)])
        for part, program in programs.items()
    }


def least(costs: list[dict[str, float]]) -> dict[str, float]:
    """Every cost's least value: other programs on the machine only add to it."""
    return {name: min(cost[name] for cost in costs) for name in costs[0]}


HEADERS = ("environment", "part", "tracing s", "XLA s", "operations", "for CUDA", "instructions")


def cells(rows: dict) -> list[tuple[str, ...]]:
    return [
        (
            name, part, f"{row['trace']:.1f}", f"{row['compile']:.1f}", f"{row['operations']:,}",
            f"{row['operations for CUDA']:,}", f"{row['instructions']:,}",
        )
        for name, costs in rows.items()
        for part, row in costs.items()
    ]  # fmt: skip


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, jaxmarl "
        f"{result['versions']['jaxmarl']}; seconds of the process's CPUs; load average "
        f"{result['load']:.1f}.", "",
        *measurement.table(HEADERS, cells(result["rows"])),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _environments(text, key):
    for name in text.split(","):
        if envs.canonical(name) is None:
            raise ConfigError(f"{key}={name} is not known; choose environments, with commas.")
    return text


@dataclass(frozen=True)
class Options:
    """What is compiled, and where it is written."""

    compiling: str = keys.key(
        "smax_3s5z", "environments", check=_environments, accepts="names with commas"
    )
    repeats: int = keys.key(1, "compilations of each part, of which the least counts", least=1)
    name: str = keys.key("compiling", "name of the files")
    out: str = keys.key("outputs/compiling", measurement.OUT)


def main(arguments: list[str]) -> None:
    """`python -m experiments.speed compiling=...`."""
    usage = "python -m experiments.speed compiling=ENVIRONMENTS KEY=VALUE ..."
    options, overrides = measurement.parse_known(Options, arguments, usage)
    if any(x.startswith("env=") for x in overrides):
        raise ConfigError("env= is not taken here; name environments in compiling=.")
    out = measurement.folder(options.out)
    jax.config.update("jax_enable_compilation_cache", False)
    rows = {
        name: parts(name, overrides, options.repeats)
        for name in measurement.names(options.compiling)
    }
    result = measurement.described("speed", arguments, "jax", "jaxmarl")
    result |= {"load": os.getloadavg()[0], "rows": rows}
    paths = measurement.write(out, options.name, result, markdown(result))
    table = Table(*HEADERS)
    for row in cells(rows):
        table.add_row(*row)
    Console().print(table)
    print(*paths, sep="\n")
