"""Batches: `python -m lorasa_jax.run --multirun env=... sharing=ps,nps [hydra/launcher=joblib]`.

Hydra makes a job for every combination of listed values, and a launcher runs them: one after the
other, side by side, or on a cluster. Every job is a run in a folder of its own, named after its
configuration, so that the same command goes on with an interrupted batch and skips what has
finished.
"""

import contextlib
import dataclasses
import functools
import shutil
import sys
import traceback
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from hydra import initialize
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lorasa_jax import config as configuration
from lorasa_jax import envs, sharing
from lorasa_jax.config import plugins
from lorasa_jax.config.overrides import PRIMARY, register, sentence, spelled
from lorasa_jax.config.schema import GROUPS
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.learn import algorithms
from lorasa_jax.training import jobs, outcomes, run_folder, side_by_side, slurm
from lorasa_jax.training.outcomes import Outcome
from lorasa_jax.values import listed, whole_number

# Launchers that are packages of their own, and what we set where their own values do not suit:
# a job uses several cores by itself, and takes more than an hour or goes on after its time.
PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
OURS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.timeout_min=10080", "hydra.sweeper.max_batch_size=2"],
    "submitit_slurm": ["hydra.launcher.max_num_timeout=1000"],
    # With a seed the same command suggests the same trials, and skips those that have finished.
    "optuna": ["hydra.sweeper.direction=maximize", "hydra.sweeper.sampler.seed=0"],
}

OPTUNA = "optuna"


def batch(overrides: list[str]) -> int:
    """Runs the jobs of a batch and tells how they ended; returns the exit code of the worst.

    A job that is refused or has to stop while it runs leaves the others alone.

    Raises:
      ConfigError: before anything runs, if a job would be refused or two would be the same run.
      TrainingError: a job's process was killed.
    """
    launcher, sweeper = (_choice(overrides, f"hydra/{what}") for what in ("launcher", "sweeper"))
    if any(word.lstrip("+").startswith("hosts=") for word in overrides):
        raise ConfigError(
            "hosts trains one run on several hosts and does not go with --multirun; drop one of "
            "them."
        )
    plugins.load(plugins.named(overrides))
    ours = (*OURS.get(launcher, ()), *OURS.get(sweeper, ()))
    overrides = [*ours, *map(_spelled, overrides)]
    register()
    outside = [
        [row.registered for row in registry.outside()]
        for registry in (envs.REGISTRY, sharing.REGISTRY, algorithms.REGISTRY)
    ]
    task = functools.partial(job, outside)
    try:
        with _hydra() as hydra:
            _check_launcher(launcher, hydra.config_loader.get_group_options("hydra/launcher"))
            _check_sweeper(
                sweeper, launcher, hydra.config_loader.get_group_options("hydra/sweeper")
            )
        if sweeper == OPTUNA:
            return _search(launcher, task, overrides)
        with _hydra() as hydra:
            members, notes = jobs.split(overrides, hydra.config_loader)
        configs = _checked(members)
        print(*notes, f"{launcher}: {len(members)} runs", sep="\n", flush=True)
        outcomes.stopped.clear()
        if launcher == side_by_side.NAME:
            return outcomes.show(_vmap(configs, overrides))
        if launcher == slurm.LAUNCHER:
            from lorasa_jax.training import slurm_launcher

            slurm_launcher.install()
        with _hydra() as hydra, outcomes.stopping(launcher):
            returns = jobs.run(hydra, task, overrides, members)
    except HydraException as error:
        raise ConfigError(sentence(error, overrides)) from error
    except BrokenProcessPool as error:
        if outcomes.stopped.is_set():
            raise KeyboardInterrupt from error
        raise TrainingError(
            "a job's process was killed, often for want of memory; the same command continues, "
            "with hydra.launcher.n_jobs=1 one job at a time."
        ) from error
    except RuntimeError as error:
        if not type(error).__module__.startswith("submitit"):
            raise
        raise TrainingError(
            "a job's process was killed, often for want of memory or time; the same command "
            f"continues ({str(error).splitlines()[0]})."
        ) from error
    return outcomes.show([result.return_value for results in returns for result in results])


def _search(launcher, task, overrides):
    """Runs a search's trials and prints the best of them; returns the exit code."""
    print(f"{launcher}: a search, which maximises the final return", flush=True)
    outcomes.stopped.clear()
    with _hydra() as hydra, outcomes.stopping(launcher):
        folder = Path(hydra.compose_config(PRIMARY, overrides, run_mode=RunMode.MULTIRUN)
                      .hydra.sweep.dir)  # fmt: skip
        hydra.multirun(PRIMARY, task, overrides)
    if outcomes.stopped.is_set():
        print("the search was stopped; the same command continues.")
        return 0
    found = OmegaConf.load(folder / "optimization_results.yaml")
    best = " ".join(f"{name}={value}" for name, value in found.best_params.items())
    print(f"best return {found.best_value:,.1f}: {best}")
    return 0


def _check_sweeper(name, launcher, available):
    if name == "basic":
        return
    if name != OPTUNA:
        raise ConfigError(f"hydra/sweeper={name} is not known; choose one of basic, {OPTUNA}.")
    if name not in available:
        raise ConfigError(
            "hydra/sweeper=optuna needs hydra-optuna-sweeper; install it with "
            'pip install -e ".[search]".'
        )
    if launcher not in ("basic", "joblib"):
        raise ConfigError(
            f"hydra/sweeper=optuna does not go with hydra/launcher={launcher}; "
            "choose one of basic, joblib."
        )


def _choice(overrides, group):
    """The last choice of one of Hydra's own groups."""
    chosen = [override for override in overrides if override.startswith(f"{group}=")]
    return chosen[-1].partition("=")[2] if chosen else "basic"


def _spelled(override):
    """As overrides.spelled, also for several choices."""
    group, equals, choices = override.partition("=")
    if group not in (*GROUPS, "logger") or "(" in choices:
        # Text is text here too, unless it may be a list of texts or of Hydra's functions.
        return override if set(choices) & set(",()") else spelled(override)
    each = (spelled(f"{group}={choice}") for choice in choices.split(","))
    return group + equals + ",".join(one.partition("=")[2] for one in each)


def _check_launcher(name, available):
    if name == "submitit_slurm" and name in available and shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm finds no srun here; start the batch where Slurm's "
            "commands are."
        )
    if name in available or name == side_by_side.NAME:
        return
    if name in PACKAGES:
        raise ConfigError(
            f"hydra/launcher={name} needs {PACKAGES[name]}; install it with "
            'pip install -e ".[batch]".'
        )
    raise ConfigError(
        f"hydra/launcher={name} is not known; "
        f"choose one of {listed(sorted({*available, *PACKAGES, side_by_side.NAME}))}."
    )


@contextlib.contextmanager
def _hydra():
    with initialize(config_path=None, version_base="1.3", job_name="lorasa"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None  # initialize makes one
        yield hydra


def _checked(members):
    """The configuration of every job, checked as far as possible before compiling.

    Raises:
      ConfigError: a job would be refused, or two jobs are one run.
    """
    configs, folders = [], set()
    for overrides in members:
        config = _with_folder(configuration.load(overrides, batch=True), tuple(overrides))
        configs.append(config)
        if config.out in folders:
            raise ConfigError(
                f"two jobs of the batch are the same run, {config.out}; give every key that is to "
                "vary values that differ in results."
            )
        folders.add(config.out)
        try:
            run_folder.begun(Path(config.out), config)
        except OSError as error:
            raise ConfigError(f"out={config.out} cannot be read ({error.strerror}).") from error
    return configs


def _with_folder(config, overrides):
    """A job's configuration whose command names its folder."""
    others = [override for override in overrides if not override.startswith("out=")]
    return dataclasses.replace(config, overrides=(*others, f"out={config.out}"))


def job(outside, raw: DictConfig) -> Outcome:
    """One run of a batch, in whatever process the launcher calls it.

    outside: what environments, ways of sharing and algorithms from outside the package were
    registered with, which a new process lacks.
    """
    for register_, rows in zip(
        (envs.register, sharing.register, algorithms.register), outside, strict=True
    ):
        for arguments, options in rows:
            register_(*arguments, **options)
    task = tuple(HydraConfig.get().overrides.task)
    config = _with_folder(configuration.resolve(raw, task, batch=True), task)
    if outcomes.stopped.is_set():
        return Outcome(config.out, 0, "not begun")
    launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
    alone, on_cluster = launcher == "basic", launcher == slurm.LAUNCHER
    lines = contextlib.nullcontext() if alone else outcomes.labelled(Path(config.out).name)
    with lines, slurm.saving() if on_cluster else contextlib.nullcontext([]) as told:
        try:
            outcome = outcomes.outcome_of(config)
        except Exception:  # a defect, whose traceback does not come back from another process
            if not alone:
                traceback.print_exc()
            raise
        if on_cluster and outcome == Outcome(config.out, 0, outcomes.SAVED):
            slurm.leave(told)
        return outcome


def _vmap(configs, overrides):
    """What becomes of jobs that are trained side by side; see `side_by_side`."""
    programs = side_by_side.programs(configs, _max_lanes(overrides))
    sizes = ", ".join(str(sum(configs[i].num_seeds for i in part)) for part in programs)
    print(f"one program each of {sizes} seeds", flush=True)
    found: dict[int, Outcome] = {}
    for part in programs:
        members = [configs[i] for i in part]
        found |= zip(part, _train_together(members), strict=True)
    return [found[i] for i in range(len(configs))]


def _max_lanes(overrides):
    """The value of hydra.launcher.max_lanes, the only key that this launcher has."""
    label = "hydra.launcher.max_lanes"
    value = None
    for override in overrides:
        key, _, text = override.lstrip("+").partition("=")
        if key == label:
            value = None if text == "null" else whole_number(text, label, least=1)
        elif key.startswith("hydra.launcher"):
            raise ConfigError(f"{key} is no key of hydra/launcher=vmap; it has {label} alone.")
    return value


def _train_together(configs: list[configuration.Config]) -> list[Outcome]:
    """Runs of a batch as one program, see `side_by_side`; a single one as any other."""
    if outcomes.stopped.is_set():
        return [Outcome(config.out, 0, "not begun") for config in configs]
    if len(configs) == 1:
        return [outcomes.outcome_of(configs[0])]

    def run(config, **shared):
        console = Console(highlight=False, file=outcomes.Lines(Path(config.out).name, sys.stdout))  # pyright: ignore
        try:
            return outcomes.outcome_of(config, console=console, **shared)
        except Exception:  # a defect: the others go on
            traceback.print_exc()
            return Outcome(config.out, 1, "stopped by an error of the program, printed above")

    return side_by_side.train(configs, run)
