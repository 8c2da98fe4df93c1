"""How fast the physics engines are: alone, and inside compiled rollouts.

    python -m experiments.speed physics=all [engines=native,mjx] [batches=16,25,64,256,1024,4096]
    python -m experiments.speed physics=ant,humanoid

Every robot is driven by random torques under profile `lorasa`. `C engine` replays the very inputs
of the compiled rollout through MuJoCo's threaded batch and does nothing else, so that the share
is what compiled rollouts cost: the callback, observations, rewards, resets. Where one step of a
batch would take longer than a minute, the cell stays empty and says so. On CPU, MJX's cells have a
process each, for its large batches can stand still inside XLA (all threads wait for one another):
what has no result after four minutes is ended, and larger batches of that robot are not tried.
Every cell is written to out/engines.{md,json} as soon as it is measured; the same command again
goes on where it stopped.
"""

import dataclasses
import multiprocessing
import platform
import resource
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch
from rich.console import Console
from rich.table import Table

from experiments import measurement
from lorasa_jax import envs, keys
from lorasa_jax.envs.mamujoco.partitions import PARTITIONS
from lorasa_jax.envs.mamujoco.physics import load_model
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.resets import reset_ended

REPEATS = 9
BATCHES = (16, 25, 64, 256, 1024, 4096)
SECONDS = 0.2  # that one timed call should last
PATIENCE = 60.0  # seconds for one step of a batch, beyond which a cell is not measured
LIMIT = 240.0  # seconds for a cell in a separate process, compilation included
ACCELERATED = 32  # steps of one timed call on an accelerator, whatever the batch

# One partition of every robot; physics does not depend on it.
TASKS = {partition.robot: name for name, partition in reversed(PARTITIONS.items())}


@dataclasses.dataclass
class Cell:
    """One robot, engine and batch size. Steps are environment steps of one robot."""

    robot: str
    engine: str
    batch: int
    steps_per_second: float | None = None
    raw_steps_per_second: float | None = None
    compile_seconds: float | None = None
    memory_mib: float | None = None
    note: str = ""


def seconds_of(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def medians(functions: dict, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each function, called in turns; each is called once before."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds_of(function))
    return {name: statistics.median(values) for name, values in times.items()}


def rollout(env, num_envs: int, steps: int, *, record: bool = False):
    """A compiled rollout of `steps` with random torques, and its arguments.

    The function returns a checksum, and the engine's inputs of every step if `record`.
    """

    def step(carry, draws):
        step_keys, actions = draws
        state, total = carry
        before = state.physics
        after, timestep = jax.vmap(env.step)(step_keys, state, actions)
        ended = timestep.terminated | timestep.truncated
        state, _ = reset_ended(env, ended, step_keys, (after, timestep))
        seen = timestep.reward + timestep.obs.sum((1, 2)) + timestep.state.sum((1, 2))
        return (state, total + seen), (before, actions) if record else None

    def run(key, actions):
        state, _ = jax.vmap(env.reset)(jax.random.split(key, num_envs))
        # As in training, a window's randomness comes from one call outside its loop.
        draws = jax.random.split(key, (steps, num_envs)), actions
        (_, total), inputs = jax.lax.scan(step, (state, jnp.zeros(num_envs)), draws)
        return total, inputs

    key = jax.random.key(0)
    shape = (steps, num_envs, env.num_agents, env.action_space.size)
    return jax.jit(run), (key, jax.random.uniform(key, shape, minval=-1.0))


def replay(env, num_envs: int, inputs):
    """The recorded inputs through MuJoCo's threaded batch, nothing else; gives the last qpos."""
    model = load_model(env.robot)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    batch = Batch(model, num_envs, 0)
    fields = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart", "ctrl")]
    physics, actions = inputs
    low, high = model.actuator_ctrlrange.T
    actions = np.asarray(actions)[..., env.action_index >= 0]
    order = np.argsort(env.action_index[env.action_index >= 0])
    ctrl = (low + high) / 2 + (high - low) / 2 * actions[..., order]
    rows = list(zip(*(np.asarray(x, float) for x in physics), ctrl, strict=True))

    def run():
        for row in rows:
            for live, value in zip(fields, row, strict=True):
                live[:] = value
            batch.step(nstep=env.robot.frame_skip)
        return np.array(fields[0])

    return run


def engine_rows(name: str, engine: str, num_envs: int, steps: int) -> dict[str, float]:
    """Steps per second of the C engine alone and inside compiled code, at one batch size."""
    env = envs.make(name, engine=engine)
    function, arguments = rollout(env, num_envs, steps, record=True)
    inputs = function(*arguments)[1]
    function, arguments = rollout(env, num_envs, steps)
    took = medians(
        {
            "raw": replay(env, num_envs, inputs),
            "jitted": lambda: jax.block_until_ready(function(*arguments)),
        }
    )
    return {key: num_envs * steps / value for key, value in took.items()}


def measure_cell(robot: str, engine: str, batch: int, guess: float) -> Cell:
    """One cell; guess: seconds of one environment step of one robot, from a smaller batch."""
    cell = Cell(robot, engine, batch)
    if guess * batch > PATIENCE:
        cell.note = f"one step of the batch would take about {guess * batch:.0f} s"
        return cell
    steps = ACCELERATED
    if jax.default_backend() == "cpu":
        steps = max(2, min(1000, round(SECONDS / (guess * batch))))
    env = envs.make(TASKS[robot], engine=engine)
    function, arguments = rollout(env, batch, steps)
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    cell.compile_seconds = time.perf_counter() - began
    sizes = compiled.memory_analysis()
    parts = sizes.temp_size_in_bytes, sizes.argument_size_in_bytes, sizes.output_size_in_bytes
    cell.memory_mib = sum(parts) / 2**20
    functions = {"jitted": lambda: jax.block_until_ready(compiled(*arguments))}
    if engine == "native":
        recorder, recorder_arguments = rollout(env, batch, steps, record=True)
        functions["raw"] = replay(env, batch, recorder(*recorder_arguments)[1])
    expected = guess * batch * steps
    took = medians(functions, REPEATS if expected < 2.0 else 1)
    cell.steps_per_second = batch * steps / took["jitted"]
    if "raw" in took:
        cell.raw_steps_per_second = batch * steps / took["raw"]
    return cell


def measure_apart(robot: str, engine: str, batch: int, guess: float) -> Cell:
    """`measure_cell` in a separate process, which is ended where it has no result in time."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply_async(measure_cell, (robot, engine, batch, guess)).get(LIMIT)
        except multiprocessing.TimeoutError:
            return Cell(robot, engine, batch, note=f"no result after {LIMIT:.0f} s")


def measure(robots, engines, batches, done=(), progress=print):
    """Yields all cells so far after each new one; those in `done` are not measured again."""
    known = {(cell.robot, cell.engine, cell.batch): cell for cell in done}
    cells = []
    on_cpu = jax.default_backend() == "cpu"
    for robot in robots:
        for engine in engines:
            guess, stuck = 5e-3 if on_cpu and engine != "native" else 3e-4, None
            measure_one = measure_apart if on_cpu and engine != "native" else measure_cell
            for batch in batches:
                cell = known.get((robot, engine, batch))
                if cell is None and stuck and batch > stuck:
                    cell = Cell(robot, engine, batch, note=f"not tried after {stuck}")
                elif cell is None:
                    cell = measure_one(robot, engine, batch, guess)
                    progress(describe(cell))
                if cell.steps_per_second:
                    guess = 1 / cell.steps_per_second
                elif cell.note.startswith("no result"):
                    stuck = batch
                cells.append(cell)
                yield cells


def described(head: dict, cells: list[Cell]) -> dict:
    """The table with the command and the machine it was measured on."""
    return {
        **head,
        "python": platform.python_version(),
        "cells": [dataclasses.asdict(cell) for cell in cells],
        "peak_memory_gib": max(map(peak_gib, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))),
    }


def peak_gib(whose: int) -> float:
    """The most memory that this process, or any child of it that has ended, ever held."""
    return resource.getrusage(whose).ru_maxrss / 2**20


def finished(out: Path, name: str, head: dict) -> list[Cell]:
    """The cells of an earlier call of the same command on the same kind of machine."""
    stored = measurement.stored(out, name)
    if any(stored.get(key) != value for key, value in head.items()):
        return []
    return [Cell(**cell) for cell in stored["cells"]]


def describe(cell: Cell) -> str:
    head = f"{cell.robot} {cell.engine} {cell.batch}:"
    if cell.steps_per_second is None:
        return f"{head} {cell.note}"
    share = ""
    if cell.raw_steps_per_second:
        share = f", {cell.steps_per_second / cell.raw_steps_per_second:.0%} of the C engine alone"
    return f"{head} {cell.steps_per_second:,.0f} steps/s{share}"


def rows_of(result: dict) -> list[tuple[str, ...]]:
    """The table's rows: robot, engine, batch, steps/s, C engine alone, share, compile s, MiB."""
    rows = []
    for cell in (Cell(**cell) for cell in result["cells"]):
        row = [cell.robot, cell.engine, str(cell.batch)]
        if cell.steps_per_second is None:
            rows.append((*row, "-", "-", cell.note, "-", "-"))
            continue
        raw = cell.raw_steps_per_second
        row.append(f"{cell.steps_per_second:,.0f}")
        row += [f"{raw:,.0f}", f"{cell.steps_per_second / raw:.0%}"] if raw else ["-", "-"]
        rows.append((*row, f"{cell.compile_seconds:.1f}", f"{cell.memory_mib:,.1f}"))
    return rows


HEADERS = (
    "robot", "engine", "batch", "steps/s", "C engine alone", "share", "compile s", "memory MiB",
)  # fmt: skip


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`",
        "",
        f"{result['device']}; jax {result['versions']['jax']}, mujoco "
        f"{result['versions']['mujoco']}; medians of {REPEATS} calls in turns; peak memory of the "
        f"process {result['peak_memory_gib']:.2f} GiB. Memory is the compiled program's own.",
        "",
        *measurement.table(HEADERS, rows_of(result)),
    ]
    return "\n".join(lines) + "\n"


def _robots(text, key):
    return text if text == "all" else measurement.names_of(TASKS)(text, key)


def _batches(text, key):
    numbers = text.split(",")
    if not all(number.isdigit() and int(number) for number in numbers):
        raise ConfigError(f"{key}={text} must be whole numbers with commas.")
    return text


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured, and where it is written."""

    physics: str = keys.key(
        "all", "robots", check=_robots, accepts="all, or names with commas: " + ", ".join(TASKS)
    )
    engines: str = keys.key(
        "native,mjx", "physics engines", accepts="names with commas: native, mjx, warp"
    )
    batches: str = keys.key(
        ",".join(map(str, BATCHES)), "numbers of robots side by side", check=_batches,
        accepts="whole numbers with commas",
    )  # fmt: skip
    name: str = keys.key("engines", "name of the files")
    out: str = keys.key("outputs/engines", measurement.OUT)


def main(arguments: list[str]) -> None:
    """`python -m experiments.speed physics=...`."""
    options = measurement.parse(Options, arguments, "speed physics=ROBOTS")
    robots = list(TASKS) if options.physics == "all" else measurement.names(options.physics)
    engines = options.engines.split(",")
    for engine in engines:
        envs.make(TASKS[robots[0]], engine=engine)  # refuses what is not installed or known
    out, console = measurement.folder(options.out), Console()
    head = measurement.described("speed", arguments, "jax", "mujoco")
    for cells in measure(
        robots,
        engines,
        [int(number) for number in measurement.names(options.batches)],
        finished(out, options.name, head),
        progress=lambda line: console.print(line, highlight=False),
    ):
        result = described(head, cells)
        paths = measurement.write(out, options.name, result, markdown(result))
    table = Table(*HEADERS)
    for row in rows_of(result):
        table.add_row(*row)
    console.print(table)
    print(*paths, sep="\n")
