"""`hydra/launcher=vmap`: jobs that differ in numbers and seeds alone are trained as one program.

Every job keeps a run directory, checkpoints, metrics and exact resumption of its own, as under any
launcher; see `together.Together`.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax

from lorasa_jax.config import Config
from lorasa_jax.learn import rollout
from lorasa_jax.training import clusters, execution, memory, numbers, phases
from lorasa_jax.training.stop import Stop
from lorasa_jax.training.teams import build_teams
from lorasa_jax.training.together import Together

NAME = "vmap"
SHARE = 0.6  # of all memory, for what can be estimated


def programs(configs: Sequence[Config], max_lanes: int | None = None) -> list[list[int]]:
    """Numbers of the configurations by the programs that they will be, in their order.

    max_lanes: the most seeds of all runs together in one program; None: as many as memory holds.
    """
    return [
        part
        for members in alike(configs)
        for part in fitting([configs[i] for i in members], members, max_lanes)
    ]


def alike(configs: Sequence[Config]) -> list[list[int]]:
    """Numbers of the configurations by groups that can be one program, in their order.

    Runs on several devices, and those whose agents are clustered, are groups of their own.
    """
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        alone = f"{i}" if config.devices > 1 or clusters.needed(config) else ""
        groups.setdefault(alone + _shape(config), []).append(i)
    return list(groups.values())


def _shape(config):
    """All that decides a configuration's program, as text."""
    tree = config.to_dict()
    names = sorted(numbers.numbers_of(config))
    for name in names:
        section, _, key = name.partition(".")
        if key:
            tree[section][key] = None
    for key in ("seed", "num_seeds", "out", "logger", "resume", "plugins", "preset"):
        del tree[key]
    return json.dumps([names, tree], sort_keys=True)


def fitting(
    configs: Sequence[Config], members: Sequence[int], max_lanes: int | None
) -> list[list[int]]:
    """Members of one program, split so that no part has more lanes than fit."""
    if len(configs) == 1:
        return [list(members)]
    if max_lanes is None:
        max_lanes = max(1, int(SHARE * memory.available() / lane_bytes(configs[0])))
    parts: list[list[int]] = [[]]
    lanes = 0
    for i, config in zip(members, configs, strict=True):
        if parts[-1] and lanes + config.num_seeds > max_lanes:
            parts.append([])
            lanes = 0
        parts[-1].append(i)
        lanes += config.num_seeds
    return parts


def lane_bytes(config: Config) -> float:
    """Roughly the memory of one seed while it trains: its state, its trajectory and a copy.

    By shapes alone; nothing is compiled.
    """
    (team, *_) = build_teams(config)
    hp = config.algo_of(0)

    def one():
        state = phases.start(jax.numpy.uint32(0), team, hp)
        return state, rollout.collect(state.key, team, state, hp)[1]

    state, trajectory = jax.eval_shape(one)
    # Parameters, optimiser states and gradients; a trajectory, its batch and its activations.
    return 3 * _bytes(state) + 6 * _bytes(trajectory)


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def train(configs: Sequence[Config], run: Callable[..., Any]) -> list[Any]:
    """run(config, program=..., stop=...) of every configuration, all as one program.

    configs: alike, see `alike`. run: trains one with execution.execute, returns what became of it
    and never raises. A signal stops and saves all of them.
    """
    program = Together(configs, execution.checked_teams(configs[0]))
    results: list[Any] = [None] * len(configs)

    def one(i, stop):
        try:
            results[i] = run(configs[i], program=program.member(i), stop=stop)
        finally:
            program.leave(i)

    with Stop() as stop:
        _wait_for([
            threading.Thread(target=one, args=(i, stop), daemon=True) for i in range(len(configs))
        ])  # fmt: skip
    return results


def _wait_for(threads):
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:  # in short waits, so that signals are heard
            thread.join(0.2)
