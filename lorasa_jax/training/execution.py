"""One run from its configuration: its directory claimed and locked, trained or continued."""

import contextlib
import dataclasses
import fcntl
import functools
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from lorasa_jax import compile_cache, envs
from lorasa_jax.config import Config
from lorasa_jax.config.schema import decisive_part
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.files import refuse_link, write_atomically
from lorasa_jax.learn.team import Team
from lorasa_jax.training import stored
from lorasa_jax.training.stored import CONFIG
from lorasa_jax.values import flat

# What a run opens in its folder, besides files that it replaces whole.
WRITTEN = (".lock", "checkpoints", "metrics.jsonl", "curve.png", "wandb")


def execute(
    config: Config,
    evaluated: Callable[[], bool] | None = None,
    *,
    program=None,
    stop=None,
    console: Console | None = None,
) -> dict | None:
    """Trains what `config` says, or continues it; returns the summary, None if interrupted.

    evaluated: called after every evaluation; where it returns True the run is stopped and saved.
    program, stop: what runs that are trained side by side share, see loop.Run. console: where the
    run says what it does, by default standard output.

    Raises:
      ConfigError: before anything is compiled, if `out` holds another run or cannot be used.
      TrainingError: if training had to stop.
    """
    from lorasa_jax.training import reporting

    console = Console(highlight=False) if console is None else console
    _say(console, reporting.headline(config))  # what follows takes seconds to import
    from lorasa_jax.learn import devices
    from lorasa_jax.training import clusters, memory, phases, plan, runs
    from lorasa_jax.training import loop as train

    compile_cache.enable(config.compile_cache)
    devices.prepare(config.devices)
    teams = None if program is None else program.teams
    if clusters.needed(config):
        clusters.check(config)
        memory.check(config, _environment(config))
    elif teams is None:
        teams = checked_teams(config)
    start = None
    if config.init_from is not None:
        start = runs.pretrained(config)
    out = Path(config.out)
    prolonged = begun(out, config)
    if prolonged is not None:
        config = prolonged
        summary = _finished(out, config, console)
        if summary is not None:
            return summary
    _claim(out, config)
    with _locked(out):
        _keep_config(out, config)
        groups = None
        if teams is None:
            inherited = None if config.sharing["clusters"] is not None else start and start.clusters
            groups = clusters.settle(out, config, inherited, console.print)
            teams = phases.build_teams(config, groups)
            plan.check(config, teams)
        begin = functools.partial(
            train.Run, config, teams, start=start, evaluated=evaluated, clusters=groups,
            program=program, stop=stop,
        )  # fmt: skip
        return _train(config, begin, console)


def _finished(out: Path, config: Config, console: Console) -> dict | None:
    """The summary of a run that has reached its end already; nothing is written."""
    from lorasa_jax.training import digests, reporting

    try:
        summary = stored.summary(out)
    except ConfigError:
        if not (out / stored.SUMMARY).is_file():
            raise
        _say(console, f"warning: {out / stored.SUMMARY} is damaged and is written anew")
        return None
    if summary is None or summary["env_steps"] != config.total_steps:
        return None
    _say(console, f"{out} is already finished")
    reporting.print_summary(console, summary)
    digest = digests.of_text(stored.metrics_text(stored.metrics(out).rows))
    if summary.get("metrics_sha256", digest) != digest:
        _say(
            console,
            f"warning: {out / stored.METRICS} has lost or changed lines since the run ended",
        )
    return summary


def _say(console, text):
    console.print(text, markup=False, soft_wrap=True)


def _train(config: Config, begin: Callable[..., Any], console: Console) -> dict | None:
    """begin(reporter=...): the run, see loop.Run."""
    from lorasa_jax.training import reporting

    out = Path(config.out)
    try:
        loggers = _LOGGERS[config.logger["name"]](config)
        with reporting.Reporter(config, loggers, console) as reporter:
            reporter.started()
            with contextlib.closing(begin(reporter=reporter)) as run:
                if not run():
                    return None
                counts = run.parameter_counts()
            summary = reporting.summarise(
                config, run.seconds, counts, _engine(run.teams[-1].env), run.ranks(), run.returns
            )
            reporter.finished(summary)
    except OSError as error:
        raise TrainingError(
            f"{out} could not be written ({error.strerror or error}); the last checkpoint is "
            "kept: mend that and run the same command again."
        ) from error
    return summary


def checked_teams(config: Config) -> tuple[Team, ...]:
    """The team of every phase of a run that need not find clusters, its plan checked."""
    from lorasa_jax.training import phases, plan

    teams = phases.build_teams(config)
    plan.check(config, teams)
    return teams


def _engine(env):
    engine = getattr(env, "engine", None)
    return engine if isinstance(engine, str) else None


def _wandb(config):
    from lorasa_jax.training.wandb_logger import WandbLogger

    return [WandbLogger(config)]


_LOGGERS = {"local": lambda config: [], "wandb": _wandb}


def _claim(out: Path, config: Config) -> None:
    """Makes a new run's directory, tries whether checkpoints can be read in it, and names the run.

    Raises:
      ConfigError: it cannot be written, or what is written there cannot be read.
    """
    from lorasa_jax.training import checkpoint

    for name in WRITTEN:
        refuse_link(out / name)
    if (out / CONFIG).exists():
        return
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"out={str(out)!a} is no text in UTF-8; choose another name.") from error
    try:
        out.mkdir(parents=True, exist_ok=True)
        checkpoint.prove(out)
        write_atomically(out / CONFIG, OmegaConf.to_yaml(config.to_dict()))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


def _keep_config(out: Path, config: Config) -> None:
    """Brings the saved configuration up to date: damage mended, the run's length, its plugins."""
    try:
        saved = stored.config(out)
    except ConfigError:
        saved = None
    try:
        if saved is None or saved.get("total_steps") != config.total_steps:
            first_out = (saved or {}).get("out", config.out)  # an old run's id follows from it
            tree = {**config.to_dict(), "out": first_out}
            write_atomically(out / CONFIG, OmegaConf.to_yaml(tree))
            _retire_summary(out, config)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error
    _rename_plugins(out, config)


def _retire_summary(out, config):
    """Keeps the summary of a shorter run under the name of its steps."""
    with contextlib.suppress(ConfigError):
        summary = stored.summary(out)
        if summary is not None and summary["env_steps"] != config.total_steps:
            (out / stored.SUMMARY).replace(out / f"summary-{summary['env_steps']}.json")


def _rename_plugins(out: Path, config: Config) -> None:
    """Replaces the saved plugins by those given now: their modules may have moved."""
    saved = stored.config(out) or {}
    if not config.plugins or saved.get("plugins") == list(config.plugins):
        return
    try:
        write_atomically(out / CONFIG, OmegaConf.to_yaml(saved | {"plugins": list(config.plugins)}))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


def begun(out: Path, config: Config) -> Config | None:
    """The configuration to go on with, where `out` holds this very run already; writes nothing.

    It is `config`, but for the switch where the run becomes longer: it stays where it was, unless
    the command line says otherwise.

    Raises:
      ConfigError: it holds something else, or may not be continued.
    """
    from lorasa_jax.training.digests import PROVING

    if not _exists(out / CONFIG):
        # A start that was killed at once leaves these.
        leftovers = {".lock", f"{CONFIG}.part", ".config.part.yaml"}
        if out.exists() and any(
            child.name not in leftovers and not child.name.startswith(PROVING)
            for child in out.iterdir()
        ):
            raise ConfigError(f"out={out} holds files that are no run; choose another folder.")
        return None
    if not config.resume:
        raise ConfigError(
            f"out={out} already holds a run; choose another folder, or resume=true to continue it."
        )
    saved = _saved_config(out)
    config = _prolonged(out, config, saved)
    before, requested = flat(decisive_part(saved)), flat(config.decisive())
    differing = sorted(
        key for key in before.keys() | requested.keys() if before.get(key) != requested.get(key)
    )
    if config.total_steps > saved["total_steps"]:
        differing.remove("total_steps")
    # Discrete actions have no spread; the default of its key has changed.
    if "network.log_std" in differing and _discrete(config):
        differing.remove("network.log_std")
    # A run goes on with as many devices as there are now, if not in the same bits.
    if "devices" in differing:
        differing.remove("devices")
    if differing:
        changes = ", ".join(f"{key} ({before.get(key)} there)" for key in differing)
        raise ConfigError(f"out={out} holds a run with another {changes}; choose another folder.")
    return config


def _environment(config: Config):
    options = dict(config.env)
    return envs.make(options.pop("name"), **options)


def _exists(path):
    """Whether a path leads to something; OSError becomes a sentence."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error


def _saved_config(out: Path) -> dict[str, Any]:
    """A run's configuration as its file has it, or its newest checkpoint where that is damaged."""
    from lorasa_jax.training import checkpoint

    try:
        saved = stored.config(out)
        assert saved is not None  # the file was there
        decisive_part(saved)
        int(saved["total_steps"])
        return saved
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        trained = checkpoint.newest_meta(out / "checkpoints").get("config")
        if trained is not None:
            print(f"warning: {out / CONFIG} is damaged; it is written anew from a checkpoint")
            return trained
        raise ConfigError(
            f"{out / CONFIG} is damaged and cannot be read, and no checkpoint holds what stood "
            "there; choose another folder."
        ) from error


def _prolonged(out, config, saved):
    """A configuration with more steps than the saved one, the switch left where it was.

    Raises:
      ConfigError: the steps that were trained depend on how many there are in all.
    """
    from lorasa_jax.training import phases

    before = saved["total_steps"]
    if config.total_steps <= before:
        return config
    if phases.lr_scale(config) is not None:
        raise ConfigError(
            f"total_steps={config.total_steps} cannot prolong the run in {out}, which ends at "
            f"{before}: algo.lr_decay={config.algo.lr_decay} made its learning rates depend on "
            "that; choose another folder."
        )
    given = any(override.lstrip("+").startswith("switch_at=") for override in config.overrides)
    if given or config.switch_at is None or saved.get("switch_at") is None:
        return config
    switch_at = saved["switch_at"]
    switch_at = tuple(switch_at) if isinstance(switch_at, list) else switch_at
    return dataclasses.replace(config, switch_at=switch_at)


def _discrete(config: Config) -> bool:
    return isinstance(_environment(config).action_space, envs.Discrete)


@contextmanager
def _locked(out: Path):
    """Holds the run directory; the lock falls with the process, however it ends."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(out / ".lock", flags, 0o666)
    except OSError as error:
        raise ConfigError(
            f"out={out} cannot be locked: {out / '.lock'} cannot be written ({error.strerror})."
        ) from error
    with open(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"out={out} is in use by another process; wait for it or choose another folder."
            ) from None
        yield
