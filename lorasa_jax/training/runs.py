"""Runs on disk, read back: configuration, teams, and state and policies at a checkpoint."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax import sharing
from lorasa_jax.config import Config
from lorasa_jax.config.schema import decisive_part
from lorasa_jax.envs.normalise import Observed
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.learn.team import Team
from lorasa_jax.training import checkpoint as checkpointing
from lorasa_jax.training import clusters, digests, phases, stored
from lorasa_jax.training.checkpoint import Checkpoints, DamagedError, UnfitError
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.teams import build_teams
from lorasa_jax.values import flat, listed

TRIES, PAUSE = 5, 0.1  # of reading beside a training that writes, and the seconds between them
# Keys that a run's checkpoints may have otherwise than its configuration.
_CHANGING = ("total_steps", "switch_at", "devices")


@dataclass(frozen=True)
class Checkpoint:
    """A run at one of its checkpoints, all seeds together; env_steps are joint steps of one seed.

    `policy` is what was learned; training continues from `progress`.
    """

    out: str
    config: Config
    team: Team
    phase: int
    progress: Progress
    env_steps: int
    clusters: tuple[int, ...] | None = None

    def policy(self, seed: int) -> Policy:
        """The policy of one of the run's seeds."""
        banks, statistics = self._of(seed, phases.finished(self.progress, self.team))
        return policy_of(
            self.config, self.team, self.phase, banks, seed=seed, step=self.env_steps,
            out=self.out, statistics=statistics, state=lambda: self.state(seed),
        )  # fmt: skip

    def state(self, seed: int) -> TrainState:
        """The whole training state of one of the run's seeds."""
        return self._of(seed, self.progress.state)

    def _of(self, seed, tree):
        row = self.config.seeds.index(seed)
        return jax.tree.map(lambda x: x[row], tree)


def policy_of(
    config: Config,
    team: Team,
    phase: int,
    banks: dict[str, Any],
    *,
    seed: int,
    step: int,
    out: str = "",
    statistics: Observed | None = None,
    state: Callable[[], TrainState] | None = None,
) -> Policy:
    """The policy that an actor's banks of one seed make of `team` in phase number `phase`."""
    return Policy(
        out=out, env_name=config.env["name"], algo=config.algo.name,
        sharing=config.sharing["name"], phase=config.phase_names[phase], seed=seed, step=step,
        team=team, weights=team.actor.scheme.weights(banks), statistics=statistics, config=config,
        banks=banks, state=state,
    )  # fmt: skip


def configured(out: str | Path) -> Config:
    """The configuration of the run in `out`, whether it has finished or not.

    Raises:
      ConfigError: there is no run, or its configuration cannot be used.
    """
    path, tree = Path(out) / stored.CONFIG, stored.config(out)
    if tree is None:
        raise ConfigError(f"out={out} holds no run; give the folder that a run printed.")
    try:
        return configuration.resolve(cast(DictConfig, OmegaConf.create(tree)))
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} was written by another version (it lacks {error}); use that one, or run again."
        ) from error


def summary(out: str | Path) -> dict:
    """The summary of the finished run in `out`, as `reporting.summarise` made it.

    Raises:
      ConfigError: there is no run, it has not finished, or the summary is damaged.
    """
    config, values = configured(out), stored.summary(out)
    if values is None or values["env_steps"] != config.total_steps:
        reached = max(checkpointing.updates(Path(out) / "checkpoints"), default=0) * config.batch
        raise ConfigError(
            f"{out} is not finished (step {reached:,} of {config.total_steps:,}); "
            "the command that began it continues it."
        )
    return values


def chosen_seed(out: str | Path, seeds: Sequence[int], seed: int | None, key: str = "seed") -> int:
    """The seed among those of `out` that is asked for under the name of `key`, else the only one.

    Raises:
      ConfigError: it is not one of them, or there are several and none is asked for.
    """
    names = listed(map(str, seeds))
    if seed is None and len(seeds) > 1:
        raise ConfigError(
            f"out={out} holds a policy for each of the seeds {names}; add {key}=SEED."
        )
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ConfigError(f"{key}={seed} is not a seed of this run; choose from {names}.")
    return seed


def require_adapters(policy: Policy) -> None:
    """Refuses a run's policy that has no adapters (yet).

    Raises:
      ConfigError: the way of sharing has no LoRA phase, or the switch was still to come.
    """
    config, out = policy.config, policy.out
    if sharing.sequence.adapting(policy.team.actor.scheme):
        return
    if policy.phase == config.phase_names[-1]:
        raise ConfigError(
            f"{out} has no LoRA phase (sharing={policy.sharing}); give a run of ps_lora or "
            "seps_lora."
        )
    raise ConfigError(
        f"{out} has no adapters yet at step {policy.step:,}; give a step after the switch, which "
        f"comes at {config.switches[0]:,} at the latest."
    )


def load(out: str | Path, env_steps: int | None = None, *, resumable: bool = False) -> Checkpoint:
    """The run in `out` at its last checkpoint, or at the one of `env_steps`.

    A training that goes on beside may delete a checkpoint while it is read; then another is.
    resumable: its progress counts all that updates report now, so that training can go on from it.

    Raises:
      ConfigError: there is no run, no such checkpoint, or it cannot be read.
    """
    config = configured(out)
    folder = Path(out) / "checkpoints"
    for left in reversed(range(TRIES)):
        update = _chosen_update(out, config, env_steps)
        before = _state_of(folder, update)
        try:
            return _read(out, config, update, resumable)
        except (DamagedError, UnfitError) as error:
            time.sleep(PAUSE)
            if left and before != _state_of(folder, update):
                continue
            raise ConfigError(_cannot_be_read(folder, update, config, error)) from error
    raise AssertionError("the last try returns or raises")


def _chosen_update(out, config, env_steps):
    updates = checkpointing.updates(Path(out) / "checkpoints")
    if not updates:
        raise ConfigError(f"out={out} has no checkpoint yet; let the run go on first.")
    update = updates[-1] if env_steps is None else env_steps // config.batch
    if update not in updates or (env_steps or 0) % config.batch:
        steps = ", ".join(str(update * config.batch) for update in updates)
        raise ConfigError(
            f"out={out} has no checkpoint at step {env_steps}; those it has are at {steps}."
        )
    return update


def _state_of(folder, update):
    """What changes while a training writes or deletes a checkpoint."""
    place = folder / str(update)
    try:
        times = [path.stat().st_mtime_ns for path in (place, *place.iterdir())]
    except OSError:
        times = None
    return times, digests.exists(place)


def _read(out, config, update, resumable):
    checkpoints = Checkpoints(Path(out) / "checkpoints", read_only=True)
    built: list[tuple[tuple[Team, ...], tuple[int, ...] | None]] = []

    def shapes(meta):
        _check_same_run(out, config, meta.get("config"))
        groups = clusters.read(out, config, meta)
        teams = build_teams(config, groups)
        built.append((teams, groups))
        phase = meta.get("phase")
        if not isinstance(phase, int) or not 0 <= phase < len(teams):
            raise DamagedError("its meta/metadata names no phase")
        names = None if resumable else meta.get("reported")
        if not (names is None or all(isinstance(name, str) for name in names)):
            raise DamagedError("its meta/metadata names no measures")
        return jax.eval_shape(functools.partial(phases.until, config, teams, phase, names))

    try:
        meta, progress = checkpoints.read(update, shapes, phases.LATER)
    except PermissionError as error:
        raise ConfigError(f"{error.filename} may not be read; ask its owner.") from error
    finally:
        checkpoints.close()
    (teams, groups), phase, step = built[0], meta["phase"], update * config.batch
    return Checkpoint(str(out), config, teams[phase], phase, progress, step, groups)


def _check_same_run(out, config, trained):
    """Refuses a configuration that is not the one that a checkpoint was trained with."""
    if trained is None:  # a checkpoint of an earlier version
        return
    saved, present = (flat(decisive_part(tree)) for tree in (trained, config.to_dict()))
    for key in sorted(saved.keys() | present.keys()):
        if key not in _CHANGING and saved.get(key) != present.get(key):
            raise ConfigError(
                f"{Path(out) / stored.CONFIG} is damaged or was changed: it says "
                f"{key}={present.get(key)}, and the checkpoint was trained with {saved.get(key)}; "
                "write that there."
            )


def _cannot_be_read(folder, update, config, error):
    whole = []
    for other in checkpointing.updates(folder):
        try:
            checkpointing.meta(folder, other)
        except (DamagedError, PermissionError):
            continue
        whole.append(other)
    others = [str(other * config.batch) for other in whole if other != update]
    advice = f"give step={others[-1]}, which is whole" if others else "no other is whole"
    if isinstance(error, UnfitError):
        advice = "use the version and the plugins that wrote it, or give another step"
    return f"the checkpoint of update {update} in {folder} cannot be read ({error}); {advice}."
