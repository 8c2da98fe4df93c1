"""One run from its configuration: its directory claimed and locked, trained or continued."""

import fcntl
import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from rich.console import Console

from lorasa_jax import compile_cache, envs
from lorasa_jax.config import Config
from lorasa_jax.config.schema import decisive_part
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn.team import Team
from lorasa_jax.values import flat

CONFIG = "config.yaml"


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

    print(reporting.headline(config), flush=True)  # what follows takes seconds to import
    from lorasa_jax.learn import devices
    from lorasa_jax.training import clusters, phases, plan, runs
    from lorasa_jax.training import loop as train

    compile_cache.enable(config.compile_cache)
    devices.prepare(config.devices)
    console = Console(highlight=False) if console is None else console
    teams = None if program is None else program.teams
    if clusters.needed(config):
        clusters.check(config)
    elif teams is None:
        teams = checked_teams(config)
    start = None
    if config.init_from is not None:
        start = runs.pretrained(config)
    out = Path(config.out)
    _claim(out, config)
    with _locked(out):
        _rename_plugins(out, config)
        summary_path = out / reporting.SUMMARY
        if summary_path.exists():
            summary = json.loads(summary_path.read_text())
            console.print(f"{out} is already finished", markup=False, soft_wrap=True)
            reporting.print_summary(console, summary)
            return summary
        if teams is None:
            groups = clusters.read(out) or _inherited(config) or clusters.find(config)
            write_atomically(out / clusters.FILE, json.dumps({"clusters": groups}) + "\n")
            print(f"clusters of agents: {list(groups)}")
            teams = phases.build_teams(config, groups)
            plan.check(config, teams)
        loggers = _LOGGERS[config.logger["name"]](config)
        with reporting.Reporter(config, loggers, console) as reporter:
            reporter.started()
            try:
                run = train.Run(config, teams, reporter, start, evaluated, program, stop)
                if not run():
                    return None
                counts = run.parameter_counts()
                summary = reporting.summarise(
                    config, run.seconds, counts, _engine(teams[-1].env), run.ranks()
                )
                reporter.finished(summary)
            except OSError as error:
                raise TrainingError(
                    f"{out} could not be written ({error.strerror}); the last checkpoint is "
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


def _inherited(config):
    """The clusters of the run that this one starts from."""
    from lorasa_jax.training import clusters

    if config.init_from is None or config.sharing["clusters"] is not None:
        return None
    return clusters.read(Path(config.init_from.rpartition("@")[0]))


def _wandb(config):
    from lorasa_jax.training.wandb_logger import WandbLogger

    return [WandbLogger(config)]


_LOGGERS = {"local": lambda config: [], "wandb": _wandb}


def _claim(out: Path, config: Config) -> None:
    """Writes the configuration to a new directory, or compares it with the one there."""
    try:
        if not begun(out, config):
            out.mkdir(parents=True, exist_ok=True)
            write_atomically(out / CONFIG, OmegaConf.to_yaml(config.to_dict()))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


def _rename_plugins(out: Path, config: Config) -> None:
    """Replaces the saved plugins by those given now: their modules may have moved."""
    saved = _saved_config(out / CONFIG)
    if not config.plugins or saved.get("plugins") == list(config.plugins):
        return
    try:
        write_atomically(out / CONFIG, OmegaConf.to_yaml(saved | {"plugins": list(config.plugins)}))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


def begun(out: Path, config: Config) -> bool:
    """Whether `out` holds this very run already; writes nothing.

    Raises:
      ConfigError: it holds something else, or may not be continued.
    """
    path = out / CONFIG
    if not path.exists():
        # A start that was killed at once leaves these.
        leftovers = {".lock", f"{CONFIG}.part", ".config.part.yaml"}
        if out.exists() and any(child.name not in leftovers for child in out.iterdir()):
            raise ConfigError(f"out={out} holds files that are no run; choose another folder.")
        return False
    if not config.resume:
        raise ConfigError(
            f"out={out} already holds a run; choose another folder, or resume=true to continue it."
        )
    saved = flat(decisive_part(_saved_config(path)))
    requested = flat(config.decisive())
    differing = sorted(
        key for key in saved.keys() | requested.keys() if saved.get(key) != requested.get(key)
    )
    # Discrete actions have no spread; the default of its key has changed.
    if "network.log_std" in differing and _discrete(config):
        differing.remove("network.log_std")
    # A run goes on with as many devices as there are now, if not in the same bits.
    if "devices" in differing:
        differing.remove("devices")
    if differing:
        changes = ", ".join(f"{key} ({saved.get(key)} there)" for key in differing)
        raise ConfigError(f"out={out} holds a run with another {changes}; choose another folder.")
    return True


def _saved_config(path: Path) -> dict[str, Any]:
    """A run's configuration as it stands in its file."""
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))


def _discrete(config: Config) -> bool:
    options = dict(config.env)
    return isinstance(envs.make(options.pop("name"), **options).action_space, envs.Discrete)


@contextmanager
def _locked(out: Path):
    """Holds the run directory; the lock falls with the process, however it ends."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"out={out} is in use by another process; wait for it or choose another folder."
            ) from None
        yield
