"""The names of what a phase's updates report, found once in a process by tracing an update."""

from collections.abc import Callable, Iterable

from lorasa_jax.config import Config
from lorasa_jax.learn.algorithms import update_of
from lorasa_jax.learn.team import Team

_KNOWN: dict[tuple, tuple[str, ...]] = {}


def names(
    config: Config, phase: int, team: Team, trace: Callable[[], Iterable[str]]
) -> tuple[str, ...]:
    """What updates report; trace() is asked where it is not known."""
    known = None if reports_more(team) else _KNOWN.get(_settings(config, phase, team))
    return remember(config, phase, team, trace()) if known is None else known


def remember(config: Config, phase: int, team: Team, report: Iterable[str]) -> tuple[str, ...]:
    """Keeps the names of a report, but of schemes with measures of their own; returns them."""
    found = tuple(report)
    if not reports_more(team):
        _KNOWN[_settings(config, phase, team)] = found
    return found


def reports_more(team: Team) -> bool:
    """Whether its schemes add measures of their own to what the algorithm reports."""
    schemes = team.actor.scheme, team.critic.scheme
    return any(scheme.penalty or scheme.after_update for scheme in schemes)


def _settings(config, phase, team):
    """What the names of an algorithm's reports depend on."""
    settings = config.env, config.network, config.critic_sharing, config.algo_of(phase)
    return update_of(config.algo), type(team.env), repr(settings)
