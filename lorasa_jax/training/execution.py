"""One run from its configuration: checked, its folder claimed, trained or continued, summed up."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from lorasa_jax import compile_cache, envs, hosts
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.learn.team import Team
from lorasa_jax.training import run_folder, stored


@hosts.taking_part
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
    from lorasa_jax.training.reporter import headline

    console = Console(highlight=False) if console is None else console
    _say(console, headline(config))  # what follows takes seconds to import
    from lorasa_jax.learn import devices
    from lorasa_jax.training import clusters, loop, memory
    from lorasa_jax.training.init_from import pretrained

    compile_cache.enable(config.compile_cache)
    devices.prepare(config.devices)
    hosts.require_alike(config.to_dict())
    teams = None if program is None else program.teams
    if clusters.needed(config):
        clusters.check(config)
        memory.check(config, envs.make(**config.env))
    elif teams is None:
        teams = checked_teams(config)
    start = None if config.init_from is None else pretrained(config)
    out = Path(config.out)
    prolonged = run_folder.begun(out, config)
    if prolonged is not None:
        if program is not None and prolonged != config:
            raise ConfigError(
                f"out={out} would be prolonged with its switch at {prolonged.switch_at}; give "
                "that as switch_at to a batch that is trained as one program."
            )
        config = prolonged
        summary = _finished(out, config, console)
        if summary is not None:
            return summary
    run_folder.claim(out, config)
    with run_folder.locked(out):
        run_folder.keep_config(out, config)
        groups = None
        if teams is None:
            inherited = None if config.sharing["clusters"] is not None else start and start.clusters
            groups = clusters.settle(out, config, inherited, lambda text: _say(console, text))
            teams = checked_teams(config, groups)
        begin = functools.partial(
            loop.Run, config, teams, start=start, evaluated=evaluated, clusters=groups,
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
    from lorasa_jax.training import measures, reporting
    from lorasa_jax.training.reporter import reporter_of

    out = Path(config.out)
    try:
        with reporter_of(config, console) as reporter:
            reporter.started()
            with contextlib.closing(begin(reporter=reporter)) as run:
                if not run():
                    return None
                team, state = run.teams[-1], run.progress.state
            summary = reporting.summarise(
                config, run.seconds, measures.parameter_counts(team, state),
                measures.engine(team.env), measures.ranks(team, state), run.returns,
            )  # fmt: skip
            reporter.finished(summary)
    except OSError as error:
        raise TrainingError(
            f"{out} could not be written ({error.strerror or error}); the last checkpoint is "
            "kept: mend that and run the same command again."
        ) from error
    return summary


def checked_teams(config: Config, groups: tuple[int, ...] | None = None) -> tuple[Team, ...]:
    """The team of every phase, its plan checked; groups: of every agent, where a run has them."""
    from lorasa_jax.training import plan
    from lorasa_jax.training.teams import build_teams

    teams = build_teams(config, groups)
    plan.check(config, teams)
    return teams
