"""Finished policies to look into: those of a figure's cells, or of runs that are given."""

import re
from dataclasses import dataclass
from pathlib import Path

import jax

from experiments import training
from experiments.cells import Request
from lorasa_jax.analysis import observations
from lorasa_jax.analysis.observations import Observations
from lorasa_jax.training import runs
from lorasa_jax.values import whole


@dataclass(frozen=True, eq=False)
class Subject:
    """A finished run; keys tell it from others of its environment, algorithm and sharing."""

    env: str
    algo: str
    sharing: str
    keys: str
    out: Path
    checkpoint: runs.Checkpoint

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.checkpoint.config.seeds

    @property
    def panel(self) -> tuple[str, str]:
        return self.env, self.algo

    @property
    def name(self) -> str:
        return "_".join(part for part in (self.env, self.algo, self.sharing, self.keys) if part)

    def columns(self) -> dict[str, str]:
        """What names the run in a table."""
        return {"env": self.env, "algo": self.algo, "sharing": self.sharing, "keys": self.keys}

    def banks(self, seed: int):
        return self.checkpoint.actor_banks(seed)

    def weights(self, seed: int):
        """Every agent's finished weights of one seed, and their axes."""
        return self.checkpoint.team.actor.scheme.weights(self.banks(seed))


def subjects(request: Request, cells_=None, *, adapted: bool) -> list[Subject] | None:
    """The runs of `run=FOLDER[@STEP],...`, or else of the cells, trained where need be.

    With a step the run is looked at there, finished or not, as long as that checkpoint was kept.
    adapted: runs must have adapters. None where only commands were asked for.

    Raises:
      ConfigError: a given run is unfinished, damaged, of another version or without adapters.
    """
    if request.own["run"]:
        return [_given(path, adapted) for path in request.own["run"].split(",")]
    trainings = training.ready(request, cells_)
    if trainings is None:
        return None
    found = []
    for one in trainings:
        cell, checkpoint = one.cell, runs.load(one.out)
        if adapted:
            runs.require_adapters(checkpoint, one.out)
        names = cell.env, cell.algo, cell.sharing, " ".join(cell.keys)
        found.append(Subject(*names, one.out, checkpoint))
    return found


def _given(text, adapted):
    path, _, step = text.rpartition("@")
    if path and re.fullmatch(r"[\d_.]+(e\d+)?", step):
        env_steps, keys = whole(step, f"the step of run={text}"), f"at {step}"
    else:
        path, env_steps, keys = text, None, ""
        runs.summary(path)
    checkpoint = runs.load(path, env_steps)
    if adapted:
        runs.require_adapters(checkpoint, path)
    config = checkpoint.config
    return Subject(
        config.env["name"], config.algo.name, config.sharing["name"], keys, Path(path), checkpoint
    )


def visited(subject: Subject, seed: int, length: int, num_envs: int) -> Observations:
    """What a run's agents see while they play their finished policies, actions sampled."""
    team = subject.checkpoint.team_of(seed)
    weights, axes = subject.weights(seed)

    @jax.jit
    def collect(key, tree):
        return observations.collect(key, team, (tree, axes), length=length, num_envs=num_envs)

    return collect(jax.random.key(seed), weights)


def by_panel(subjects_: list[Subject]) -> dict[tuple[str, str], list[Subject]]:
    """{(environment, algorithm): runs}, in their order."""
    found: dict[tuple[str, str], list[Subject]] = {}
    for subject in subjects_:
        found.setdefault(subject.panel, []).append(subject)
    return found
