"""Where a run goes on: at its newest checkpoint that is whole; damaged ones are set aside."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from lorasa_jax.config import Config
from lorasa_jax.errors import TrainingError
from lorasa_jax.learn.team import Team
from lorasa_jax.training import phases
from lorasa_jax.training.checkpoint import Checkpoints, DamagedError, UnfitError
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.reporting import finite_mean, read_metrics, returns_by_step


def restored(
    config: Config,
    teams: tuple[Team, ...],
    checkpoints: Checkpoints,
    say: Callable[[str], None],
) -> tuple[tuple[int, dict[str, Any], Progress] | None, int]:
    """(update, what stands beside it, progress) of the newest whole checkpoint, None without one;
    and how many damaged ones were set aside for it, which is said.

    Raises:
      TrainingError: a checkpoint is whole and of another program.
    """
    found, damage = _newest_whole(config, teams, checkpoints)
    if damage:
        _set_aside(checkpoints, damage, found and found[0], say)
    if found is None:
        return None, len(damage)
    update, meta, progress = found
    returns = meta.get("returns") or _logged_returns(config, update)
    evaluated = meta.get("evaluated", [at for at, _ in returns])
    returns = [(at, mean) for at, mean in returns if math.isfinite(mean)]
    meta = {**meta, "returns": returns, "evaluated": list(evaluated)}
    return (update, meta, progress), len(damage)


def _newest_whole(config, teams, checkpoints):
    """(update, meta, progress) of the newest whole checkpoint, and {newer update: damage}."""
    damage: dict[int, DamagedError] = {}
    shapes = functools.partial(_shapes, config, teams)
    for update in reversed(checkpoints.all()):
        try:
            meta, progress = checkpoints.read(update, shapes, phases.LATER)
        except DamagedError as error:
            damage[update] = error
        except UnfitError as error:
            raise TrainingError(
                f"checkpoint {update} in {checkpoints.folder} is whole and does not fit "
                f"what is to be trained ({error}); use the version and the plugins that wrote "
                "it, or choose another folder."
            ) from error
        else:
            return (update, meta, progress), damage
    return None, damage


def _shapes(config, teams, meta):
    missing = [key for key in ("phase", "seconds", "since_line") if key not in meta]
    if missing:
        raise DamagedError(f"its meta/metadata lacks {', '.join(missing)}")
    if not 0 <= meta["phase"] < len(teams):
        raise DamagedError(f"it is of phase {meta['phase']}, which there is not")
    return jax.eval_shape(functools.partial(phases.until, config, teams, meta["phase"]))


def _set_aside(checkpoints, damage, update, say):
    """Says what is damaged, and renames it, so that its number can be written again."""
    whence = "none is whole, and training begins again"
    if update is not None:
        whence = f"training goes on from that of update {update}"
    for newer, error in sorted(damage.items()):
        place = checkpoints.set_aside(newer)
        say(
            f"warning: the checkpoint of update {newer} is damaged ({error}); {whence}, and "
            f"the damaged one is kept as {place}"
        )


def _logged_returns(config, update):
    """What checkpoints of 0.1.0 do not hold: the returns up to `update`, from the metrics."""
    rows = read_metrics(config.out)
    returns = returns_by_step([row for row in rows if row["env_steps"] <= update * config.batch])
    means = [(steps // config.batch, finite_mean(values)) for steps, values in returns.items()]
    return [(at, mean) for at, mean in means if mean is not None]
