"""The compiled code of a run: one compilation a phase, and how the run enters each."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax import hosts
from lorasa_jax.config import Config
from lorasa_jax.learn import devices
from lorasa_jax.learn.team import Team
from lorasa_jax.training import phases
from lorasa_jax.training.numbers import Lanes, lanes_of, over_lanes
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.teams import tuned


@dataclass(frozen=True)
class Phase:
    """One compiled phase, which ends at update `end`.

    advance(progress, n) runs n updates and consumes its progress; play(progress, update) evaluates.
    """

    name: str
    end: int
    advance: Callable
    play: Callable


class Program:
    """The compiled code of one run: how it begins, changes phase, trains and is evaluated."""

    def __init__(self, config: Config, teams: tuple[Team, ...], lanes: Lanes | None = None):
        self.config, self.teams = config, teams
        self.lanes = lanes_of([config]) if lanes is None else lanes
        self._entries: dict[int, Callable] = {}

    def begin(self) -> Progress:
        """The progress of all lanes at update 0."""
        return jax.jit(functools.partial(phases.begin, self.config, self.teams[0]))(self.lanes)

    def switch(self, index: int, progress: Progress) -> Progress:
        """Into phase number `index`."""
        if index not in self._entries:
            enter = functools.partial(phases.switch, self.config, self.teams, index)
            self._entries[index] = jax.jit(enter)
        return devices.told(self._entries[index](progress, self.lanes))

    def compile(self, index: int, progress: Progress) -> Phase:
        """Phase number `index`, compiled for progress of these shapes."""
        team = self.teams[index]
        return compile_phase(self.config, index, team, progress, self.lanes)


def compile_phase(
    config: Config, index: int, team_: Team, progress: Progress, lanes: Lanes | None = None
) -> Phase:
    """Compiles a phase's chunk and its evaluation ahead of time, so that neither can recompile.

    lanes: the seeds and numbers of the runs in `progress`, by default the configuration's; both
    are arguments of the compiled code.
    """
    lanes = lanes_of([config]) if lanes is None else lanes

    def play(policy, lane, update):
        team = tuned(config, team_, lane.numbers)[index]
        return phases.evaluated(config, team, policy, jax.random.key(lane.seeds), update)

    def run(progress, lane, n):
        team = tuned(config, team_, lane.numbers)[index]
        return phases.trained(config, index, team, lane.numbers, progress, n)

    def served(progress):
        policy = phases.finished(progress, team_)
        whole = hosts.readable(policy)
        return whole if config.devices == 1 else jax.device_put(whole, jax.local_devices()[0])

    n = jnp.zeros((), jnp.int32)
    compiled_run = over_lanes(run, (0, 0, None))
    if config.devices > 1:
        compiled_run = devices.compile_split(
            compiled_run, progress, lanes, n, config.devices, config.num_seeds
        )
    else:
        compiled_run = jax.jit(compiled_run, donate_argnums=0).lower(progress, lanes, n).compile()
    compiled_play = jax.jit(over_lanes(play, (0, 0, None)))
    compiled_play = hosts.compiled_by_first(compiled_play, served(progress), lanes, n)
    return Phase(
        config.phase_names[index],
        config.phase_ends[index],
        lambda progress, n: compiled_run(progress, lanes, n),
        lambda progress, update: compiled_play(served(progress), lanes, update),
    )
