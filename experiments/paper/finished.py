"""Finished policies to look into: those of a figure's cells, or of runs that are given."""

import re
from dataclasses import dataclass
from pathlib import Path

import jax

import lorasa_jax
from experiments import training
from experiments.cells import Request
from lorasa_jax.analysis import observations
from lorasa_jax.analysis.observations import Observations
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.team import Team
from lorasa_jax.training import runs
from lorasa_jax.values import whole_number


@dataclass(frozen=True, eq=False)
class Subject:
    """A run's policies, {seed: policy}; keys tell it from others of its environment and sharing."""

    env: str
    algo: str
    sharing: str
    keys: str
    out: Path
    policies: dict[int, Policy]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.policies)

    @property
    def team(self) -> Team:
        """The team of all seeds; see `Policy`."""
        return self.policies[self.seeds[0]].team

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
        return self.policies[seed].banks

    def weights(self, seed: int):
        """Every agent's finished weights of one seed, and their axes."""
        return self.policies[seed].weights


def subjects(request: Request, cells_=None, *, adapted: bool) -> list[Subject] | None:
    """The runs of `run=FOLDER[@STEP],...`, or else of the cells, trained where need be.

    With a step it is that checkpoint, whether the run is finished or not, if it was kept.
    adapted: runs must have adapters. None where only commands were asked for.

    Raises:
      ConfigError: a given run is unfinished, damaged, of another version or without adapters.
    """
    if request.options["run"]:
        return [_given(path, adapted) for path in request.options["run"].split(",")]
    trainings = training.ready(request, cells_)
    if trainings is None:
        return None
    read = []
    for one in trainings:
        cell, policies = one.cell, _policies(one.out, None, adapted)
        names = cell.env, cell.algo, cell.sharing, " ".join(cell.keys)
        read.append(Subject(*names, one.out, policies))
    return read


def _given(text, adapted):
    path, _, step = text.rpartition("@")
    if path and re.fullmatch(r"[\d_.]+(e\d+)?", step):
        env_steps, keys = whole_number(step, f"the step of run={text}"), f"at {step}"
        runs.configured(path)
    else:
        path, env_steps, keys = text, None, ""
        runs.summary(path)
    policies = _policies(path, env_steps, adapted)
    one = next(iter(policies.values()))
    return Subject(one.env_name, one.algo, one.sharing, keys, Path(path), policies)


def _policies(out, env_steps, adapted):
    """{seed: policy} of a run at a checkpoint."""
    policies = lorasa_jax.load_all(str(out), env_steps)
    if adapted:
        runs.require_adapters(policies[0])
    return {policy.seed: policy for policy in policies}


def visited(subject: Subject, seed: int, length: int, num_envs: int) -> Observations:
    """What a run's agents see while they play their finished policies, actions sampled."""
    team = subject.policies[seed].seeing_team
    weights, axes = subject.weights(seed)

    @jax.jit
    def collect(key, tree):
        return observations.collect(key, team, (tree, axes), length=length, num_envs=num_envs)

    return collect(jax.random.key(seed), weights)


def by_panel(subjects_: list[Subject]) -> dict[tuple[str, str], list[Subject]]:
    """{(environment, algorithm): runs}, in their order."""
    panels: dict[tuple[str, str], list[Subject]] = {}
    for subject in subjects_:
        panels.setdefault(subject.panel, []).append(subject)
    return panels
