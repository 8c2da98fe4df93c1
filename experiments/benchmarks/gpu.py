"""What this machine's accelerator does, right and fast, within ten minutes.

    python -m experiments.gpu [minutes=9] [checks=rollout,update,export,resume] [cells=CELL,...]
        [size=1.0] [out=outputs/gpu]

First checks: a rollout and an update on this device and on the CPU from the same state, an export
beside its run, a run that is interrupted and one that is not. Then one cell after the other, the
most wanted first: whole updates and their rollouts alone, compile seconds and memory. What is left
when the minutes are over is named; the same command again goes on there. `size` multiplies the
numbers of environments, so that everything can be tried on a CPU first.
Writes out/gpu.{json,md} after every check and cell.
"""

import functools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lorasa_jax
from experiments import command, measurement
from lorasa_jax import config as configuration
from lorasa_jax import keys
from lorasa_jax.analysis import resources
from lorasa_jax.learn import rollout
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

ANT = ["env=ant_4x2", "sharing=ps_lora", "num_seeds=5", "algo.rollout_length=160"]
TIMES = 3  # timed updates and rollouts of a cell, in turns


def _maps(name, num_envs, seeds):
    return [
        f"env={name}", "sharing=ps_lora", f"algo.num_envs={num_envs}", f"num_seeds={seeds}",
        "algo.rollout_length=128", "algo.chunk_length=16",
    ]  # fmt: skip


# Name -> keys of the run; the first are measured first.
CELLS: dict[str, list[str]] = {
    "ant native": [*ANT, "env.engine=native", "algo.num_envs=25"],
    "3s5z 128 x 1": _maps("smax_3s5z", 128, 1),
    "3s5z 128 x 8": _maps("smax_3s5z", 128, 8),
    "3s5z 1024 x 1": _maps("smax_3s5z", 1024, 1),
    "ant warp": [*ANT, "env.engine=mjx", "algo.num_envs=1024"],
    "3s5z_vs_3s6z 128 x 8": _maps("smax_3s5z_vs_3s6z", 128, 8),
    "MMM2 128 x 8": _maps("smac_MMM2", 128, 8),
    "3s5z 1024 x 8": _maps("smax_3s5z", 1024, 8),
    "3s5z_vs_3s6z 1024 x 1": _maps("smax_3s5z_vs_3s6z", 1024, 1),
    "MMM2 1024 x 1": _maps("smac_MMM2", 1024, 1),
    "MMM2 128 x 1": _maps("smac_MMM2", 128, 1),
    "3s5z_vs_3s6z 128 x 1": _maps("smax_3s5z_vs_3s6z", 128, 1),
}
SMALL = [
    "env=specialisation_4", "network.hidden=16", "algo.num_envs=8", "algo.rollout_length=20",
    "algo.chunk_length=10", "total_steps=1600", "eval_every=2", "eval_episodes=2",
]  # fmt: skip


def _state():
    config = configuration.load([*SMALL, "sharing=ps_lora"])
    team = build_teams(config)[0]
    hp = config.algo_of(0)
    return config, team, hp, phases.start(jnp.uint32(0), team, hp)


def _on_both(function, state) -> float:
    """The largest difference of function(state) between this device and the CPU."""
    results = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        results.append(jax.jit(function)(jax.device_put(state, device)))
    leaves = zip(*map(jax.tree.leaves, results), strict=True)
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in leaves if not _is_key(a)]
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in pairs)


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def check_rollout() -> dict[str, Any]:
    """What agents meet in a trajectory from one state."""
    _, team, hp, state = _state()
    play = lambda state: rollout.collect(state.key, team, state, hp)[1].transitions.obs  # noqa: E731
    return _verdict(_on_both(play, state), 1e-3)


def check_update() -> dict[str, Any]:
    """The parameters after one update."""
    config, team, hp, state = _state()
    learn = lambda state: update_of(config.algo)(state, team, hp)[0].actor.banks  # noqa: E731
    return _verdict(_on_both(learn, state), 1e-3)


def check_export() -> dict[str, Any]:
    """The recurrent state after a step of a run's policy and of its export."""
    from lorasa_jax.export import command as export

    with tempfile.TemporaryDirectory() as folder:
        run = _train(out=str(Path(folder, "run")))
        export.main([f"out={run.out}", "format=safetensors", f"to={folder}/export"])
        policy, read = run.policy(), lorasa_jax.load(f"{folder}/export")
        _, step = policy.env().reset(jax.random.key(0))
        first = jnp.ones((), bool)
        carries = [
            np.asarray(p.act(step.obs, p.initial_carry(), first, step.legal)[0])
            for p in (policy, read)
        ]
        apart = float(np.abs(carries[0] - carries[1]).max())
    return _verdict(apart, 1e-5)


def check_resume() -> dict[str, Any]:
    """The metrics of a run that was stopped once, and of one that was not."""
    with tempfile.TemporaryDirectory() as folder:
        whole = _train(out=f"{folder}/whole")
        _train(out=f"{folder}/cut", callbacks=[lambda run: len(run.metrics) >= 3])
        cut = _train(out=f"{folder}/cut")
    columns = [name for name in whole.metrics if name != "steps_per_second"]
    same = whole.metrics[columns].equals(cut.metrics[columns])
    return {"passed": bool(same), "what": "bit for bit"}


def _train(**more):
    settings = dict(word.split("=") for word in SMALL)
    return lorasa_jax.train(sharing="ps_lora", **settings, **more)


def _verdict(apart: float, most: float) -> dict[str, Any]:
    return {"passed": apart <= most, "what": f"{apart:.1e} apart, {most:.0e} allowed"}


CHECKS = {
    name: globals()[f"check_{name}"] for name in ("rollout", "update", "export", "resume")
}  # fmt: skip


def cell(overrides: list[str], size: float) -> dict[str, Any]:
    """One cell: compile seconds, seconds an update and of it playing, steps/s, memory."""
    words = [_sized(word, size) for word in overrides]
    sizes = dict(word.split("=") for word in words)
    batch = int(sizes["algo.num_envs"]) * int(sizes["algo.rollout_length"])
    config = configuration.load([*words, f"total_steps={1000 * batch}", "eval_episodes=1"])
    teams = build_teams(config)
    began = time.perf_counter()
    progress = jax.jit(functools.partial(phases.until, config, teams, len(teams) - 1))()
    phase = compile_phase(config, len(teams) - 1, teams[-1], progress)
    compiling = time.perf_counter() - began
    hp = config.algo_of(-1)

    def one(state):
        return rollout.collect(state.key, teams[-1], state, hp)[2]

    collect = jax.jit(jax.vmap(one))
    box = [progress]

    def update():
        box[0] = jax.block_until_ready(phase.advance(box[0], jnp.int32(1)))

    took = resources.median_seconds(
        {"update": update, "play": lambda: jax.block_until_ready(collect(box[0].state))}, TIMES
    )
    return {
        "keys": " ".join(words),
        "compile_seconds": compiling,
        "update_seconds": took["update"],
        "share_of_playing": took["play"] / took["update"],
        "steps_per_second": config.batch * config.num_seeds / took["update"],
        "peak_bytes": resources.peak_bytes(),
    }


def _sized(word, size):
    key, _, value = word.partition("=")
    return f"{key}={max(2, round(int(value) * size))}" if key == "algo.num_envs" else word


@dataclass(frozen=True)
class Options:
    """What is checked and measured, and for how long."""

    minutes: float = keys.key(9.0, "no check or cell begins after these", above=0)
    checks: str = keys.key(",".join(CHECKS), "parted by commas", check=measurement.names_of(
        CHECKS, empty=True))  # fmt: skip
    cells: str = keys.key(",".join(CELLS), "parted by commas", check=measurement.names_of(
        CELLS, empty=True))  # fmt: skip
    size: float = keys.key(1.0, "what numbers of environments are multiplied by", above=0)
    out: str = keys.key("outputs/gpu", measurement.OUT)


def main(arguments: list[str]) -> None:
    options = measurement.parse(Options, arguments, "gpu")
    out, end = measurement.folder(options.out), time.monotonic() + 60 * options.minutes
    result = {"checks": {}, "cells": {}} | measurement.stored(out, "gpu")
    result |= measurement.described("gpu", arguments, "jax", "jaxlib", "mujoco")
    todo = [("checks", name, CHECKS[name]) for name in measurement.names(options.checks)]
    todo += [
        ("cells", name, functools.partial(cell, CELLS[name], options.size))
        for name in measurement.names(options.cells)
    ]
    left, seconds = [], []
    for group, name, measure in todo:
        if name in result[group]:
            continue
        if time.monotonic() > end:
            left.append(name)
            continue
        began = time.monotonic()
        try:
            result[group][name] = measure()
        except Exception as error:  # the next may work; this one is told
            result[group][name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        seconds.append(time.monotonic() - began)
        print(f"{name}: {_told(result[group][name])} ({seconds[-1]:.0f} s)", flush=True)
        measurement.write(out, "gpu", result, markdown(result))
    if left:
        print(f"not begun in {options.minutes:g} minutes: {', '.join(left)}")
    if seconds:
        print(f"median {statistics.median(seconds):.0f} s each; {out / 'gpu.md'}")


def _told(row):
    if "failed" in row:
        return f"failed, {row['failed']}"
    if "passed" in row:
        return ("passed" if row["passed"] else "NOT EQUAL") + f", {row['what']}"
    return f"{row['steps_per_second']:,.0f} steps/s, compiled in {row['compile_seconds']:.0f} s"


def markdown(result: dict) -> str:
    checks = [(name, _told(row)) for name, row in result["checks"].items()]
    rows = [
        (
            name, f"{row['steps_per_second']:,.0f}", f"{row['update_seconds']:.3f}",
            f"{row['share_of_playing']:.0%}", f"{row['compile_seconds']:.0f}",
            " / ".join(f"{x / 2**30:.1f} {kind}" for kind, x in row["peak_bytes"].items()),
        )
        if "failed" not in row else (name, _told(row), "-", "-", "-", "-")
        for name, row in result["cells"].items()
    ]  # fmt: skip
    head = "cell", "steps/s, all seeds", "update s", "of it playing", "compile s", "peak GiB so far"
    return "\n".join([
        f"`{result['command']}`, {result['device']}; medians of {TIMES}.", "",
        *measurement.table(("check", "result"), checks), "", *measurement.table(head, rows), "",
    ])  # fmt: skip


if __name__ == "__main__":
    command.run(main)
