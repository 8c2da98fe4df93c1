"""A run: chunks of updates between evaluations, checkpoints, the switch, and interruptions."""

import contextlib
import functools
import math
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import terminal
from lorasa_jax.config import Config
from lorasa_jax.errors import TrainingError
from lorasa_jax.learn.team import Team
from lorasa_jax.training import digests, phases, stored, switching
from lorasa_jax.training.checkpoint import Checkpoints, DamagedError, UnfitError
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.program import Program
from lorasa_jax.training.reporting import finite_mean, read_metrics, returns_by_step
from lorasa_jax.training.together import Member


@dataclass
class Stop:
    """Set by SIGINT, SIGTERM, SIGHUP or a callback; the run ends after the chunk under way.

    compiling: nothing has happened since the last checkpoint, and compiled code cannot be asked to
    stop: Ctrl-C ends the program as it does elsewhere.
    """

    signal: str | None = None
    compiling: bool = False
    _old: dict = field(default_factory=dict)

    def __enter__(self):
        for number in terminal.stop_signals():
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def before(self, number):
        """The handler of a signal that this one took the place of."""
        return self._old[number]

    def _handle(self, number, frame):
        before = self._old[number]
        if self.compiling and number == signal.SIGINT and callable(before):
            before(number, frame)
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


class Run:
    """One training run, from its first or last checkpoint to its end or an interruption."""

    def __init__(
        self,
        config: Config,
        teams: tuple[Team, ...],
        reporter,
        start=None,
        evaluated=None,
        clusters: tuple[int, ...] | None = None,
        program: Program | Member | None = None,
        stop: Stop | None = None,
    ):
        """start: the checkpoint (runs.Checkpoint) that the second phase begins from, if any.

        evaluated: called after an evaluation has been saved; True asks to stop. clusters: the
        groups that `teams` were built with, where they have any. program: the compiled code, where
        the run is one of several that share it. stop: what says when to stop, where that is not
        for this run to find out.
        """
        self.config, self.teams, self.reporter = config, teams, reporter
        self.start, self.evaluated, self.clusters = start, evaluated, clusters
        self.program = Program(config, teams) if program is None else program
        self.stop = stop
        self.kept = tuple(steps // config.batch for steps in config.keep_at)
        kept = (*config.phase_ends[:-1], *self.kept)
        self.checkpoints = Checkpoints(Path(config.out) / "checkpoints", kept)
        self.seconds = {"compile": 0.0, "train": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
        self.since_line = [0, 0.0]  # updates and seconds of training since the last evaluation
        self.returns: list[tuple[int, float]] = []  # (update, mean over seeds) of evaluations
        self.evaluated_updates: list[int] = []  # all of them, also without a finite return
        self.lost = 0  # checkpoints that were damaged when the run was continued
        self.proved = False  # whether a checkpoint of this process has been read back

    def __call__(self) -> bool:
        """Trains until the end; returns whether it got there, or was asked to stop."""
        config = self.config
        index, progress = self._restore() or (0, None)
        if progress is None:
            self.reporter.rewind(-1)
            index, progress = self._begin()
        with Stop() if self.stop is None else contextlib.nullcontext(self.stop) as stop:
            phase = self._compile(index, progress, stop)
            if _update(progress) == self._first_update() or self._last_rows_are_gone(progress):
                self._evaluate(phase, progress)
            while _update(progress) < config.num_updates and stop.signal is None:
                last = len(self.teams) - 1
                if _update(progress) == phase.end or (index < last and self._rule_holds(progress)):
                    index += 1
                    progress = self._switch(index, progress)
                    phase = self._compile(index, progress, stop)
                progress = self._advance(phase, progress)
                update = _update(progress)
                evaluates = update % config.eval_every == 0 or update == phase.end
                if evaluates:
                    progress = self._evaluate(phase, progress)
                due = update % config.checkpoint_every == 0 or update in (phase.end, *self.kept)
                due = due or (index < len(self.teams) - 1 and self._rule_holds(progress))
                callback = self.evaluated if evaluates else None
                if due or callback or stop.signal is not None:
                    self._save(index, progress)
                if callback and callback() and stop.signal is None:
                    stop.signal = "callback"
            if _update(progress) < config.num_updates:
                self.reporter.interrupted(stop.signal, _update(progress))
                return False
        self.progress = progress
        return True

    def close(self) -> None:
        """Lets go of what the checkpoints hold."""
        self.checkpoints.close()

    def _begin(self):
        """(phase, progress) of a fresh run."""
        config = self.config
        if self.start is None:
            with self.reporter.compiling("the first state"):
                return 0, self.program.begin()
        progress = self.start.progress
        if self.start.config.seeds != config.seeds:
            keys = jax.vmap(jax.random.fold_in)(progress.state.key, jnp.array(config.seeds))
            progress = progress._replace(state=progress.state._replace(key=keys))
        return 1, self._switch(1, progress)

    def _last_rows_are_gone(self, progress):
        """Whether the run is at its end and metrics.jsonl has lost the rows of that evaluation."""
        if _update(progress) < self.config.num_updates:
            return False
        rows = read_metrics(self.config.out)
        seeds = {row["seed"] for row in rows if row["env_steps"] == self.config.total_steps}
        return not seeds.issuperset(self.config.seeds)

    def _first_update(self):
        return 0 if self.start is None else self.config.switches[0] // self.config.batch

    def _rule_holds(self, progress) -> bool:
        """Whether the evaluation at this update calls for the next phase."""
        if self.config.switch_when is None:
            return False
        if not self.returns or self.returns[-1][0] != _update(progress):
            return False
        return switching.RULES[self.config.switch_when](
            [value for _, value in self.returns],
            threshold=self.config.switch_threshold,
            patience=self.config.switch_patience,
            margin=self.config.switch_margin,
        )

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters of one seed's finished run, by role and bank."""
        state, team = self.progress.state, self.teams[-1]
        return {
            f"{role} {bank}": sum(leaf[0].size for leaf in jax.tree.leaves(learner.banks[bank]))
            for role, learner, scheme in (
                ("actor", state.actor, team.actor.scheme),
                ("critic", state.critic, team.critic.scheme),
            )
            for bank in learner.banks
            if not scheme.banks[bank].memory
        }

    def ranks(self) -> list[dict[str, list[int]]]:
        """Ranks {layer: [agent]} that training decided, of every seed; empty where it did not."""
        scheme, banks = self.teams[-1].actor.scheme, self.progress.state.actor.banks
        if scheme.ranks is None:
            return []
        found = jax.tree.map(np.asarray, jax.vmap(scheme.ranks)(banks))
        index = scheme.banks["adapters"].index
        return [
            {layer: [int(ranks[seed, i]) for i in index] for layer, ranks in found.items()}
            for seed in range(self.config.num_seeds)
        ]

    def _restore(self):
        """(phase, progress) of the newest checkpoint that is whole; damaged ones are set aside."""
        found, damage = self._newest_whole()
        if damage:
            self._set_aside(damage, found and found[0])
        if found is None:
            return None
        update, meta, progress = found
        self.seconds.update(meta["seconds"])
        self.since_line = list(meta["since_line"])
        self.lost += meta.get("lost", 0)
        returns = meta.get("returns") or _logged_returns(self.config, update)
        self.returns = [(at, mean) for at, mean in returns if math.isfinite(mean)]
        batch = self.config.batch
        evaluated = tuple(at * batch for at in meta.get("evaluated", [at for at, _ in returns]))
        self.reporter.rewind(update * batch, evaluated, meta.get("metrics_sha256"))
        self.evaluated_updates = [step // batch for step in evaluated]
        return meta["phase"], progress

    def _newest_whole(self):
        """(update, meta, progress) of the newest whole checkpoint, and {newer update: damage}."""
        damage: dict[int, DamagedError] = {}
        for update in reversed(self.checkpoints.all()):
            try:
                meta, progress = self.checkpoints.read(update, self._shapes, phases.LATER)
            except DamagedError as error:
                damage[update] = error
            except UnfitError as error:
                raise TrainingError(
                    f"checkpoint {update} in {self.checkpoints.folder} is whole and does not fit "
                    f"what is to be trained ({error}); use the version and the plugins that wrote "
                    "it, or choose another folder."
                ) from error
            else:
                return (update, meta, progress), damage
        return None, damage

    def _shapes(self, meta):
        missing = [key for key in ("phase", "seconds", "since_line") if key not in meta]
        if missing:
            raise DamagedError(f"its meta/metadata lacks {', '.join(missing)}")
        if not 0 <= meta["phase"] < len(self.teams):
            raise DamagedError(f"it is of phase {meta['phase']}, which there is not")
        return jax.eval_shape(
            functools.partial(phases.until, self.config, self.teams, meta["phase"])
        )

    def _set_aside(self, damage, update):
        """Says what is damaged, and renames it, so that its number can be written again."""
        self.lost = len(damage)
        whence = "none is whole, and training begins again"
        if update is not None:
            whence = f"training goes on from that of update {update}"
        for newer, error in sorted(damage.items()):
            place = self.checkpoints.set_aside(newer)
            self.reporter.say(
                f"warning: the checkpoint of update {newer} is damaged ({error}); {whence}, and "
                f"the damaged one is kept as {place}"
            )

    def _switch(self, index, progress):
        banks = self.teams[index].actor.scheme.banks
        steps = _update(progress) * self.config.batch
        self.reporter.switched(steps, self.config.phase_names[index], banks)
        return self.program.switch(index, progress)

    def _compile(self, index, progress, stop):
        began = time.perf_counter()
        stop.compiling = self.stop is None  # of several runs, others may be training
        with self.reporter.compiling(f"phase {self.config.phase_names[index]}"):
            phase = self.program.compile(index, progress)
        stop.compiling = False
        self.seconds["compile"] += time.perf_counter() - began
        return phase

    def _advance(self, phase, progress):
        config, update = self.config, _update(progress)
        milestones = [phase.end, update + config.updates_per_call]
        milestones += [kept for kept in self.kept if kept > update]
        milestones += [
            (update // every + 1) * every for every in (config.eval_every, config.checkpoint_every)
        ]
        n = min(milestones) - update
        began = time.perf_counter()
        progress = jax.block_until_ready(phase.advance(progress, jnp.int32(n)))
        took = time.perf_counter() - began
        self.seconds["train"] += took
        self.since_line = [self.since_line[0] + n, self.since_line[1] + took]
        self._check_finite(progress)
        self.reporter.advanced(
            phase.name, update + n, took / n, _played(progress.episodes), _train_wins(progress),
            _spread(progress),
        )  # fmt: skip
        return progress

    def _check_finite(self, progress):
        bad = sorted(
            (int(first), seed, name)
            for name, firsts in progress.first_bad.items()
            for seed, first in zip(self.config.seeds, np.asarray(firsts), strict=True)
            if first != phases.NEVER
        )
        if bad:
            update, seed, _ = bad[0]
            names = ", ".join(name for *when, name in bad if when == [update, seed])
            last = self.checkpoints.latest()
            kept = "no checkpoint was written yet"
            if last is not None:
                kept = f"the checkpoint of update {last} is kept"
            raise TrainingError(
                f"update {update} of seed {seed} left {names} not finite; training has stopped "
                f"and {kept}."
            )

    def _evaluate(self, phase, progress):
        config, update = self.config, _update(progress)
        began = time.perf_counter()
        results = jax.block_until_ready(phase.play(progress, jnp.int32(update)))
        self.seconds["evaluate"] += time.perf_counter() - began
        updates, seconds = self.since_line
        speed = updates * config.batch * config.num_seeds / seconds if updates else None
        rows = [
            _row(config, phase.name, update, seed, i, results, progress, speed)
            for i, seed in enumerate(config.seeds)
        ]
        if self.lost:
            rows = [{**row, "lost_checkpoints": self.lost} for row in rows]
            self.lost = 0
        self.reporter.evaluated(rows)
        self.evaluated_updates.append(update)
        mean = finite_mean(np.asarray(results.returns, float).reshape(-1).tolist())
        if mean is not None:
            self.returns.append((update, mean))
        self.since_line = [0, 0.0]
        return progress._replace(
            sums=jax.tree.map(jnp.zeros_like, progress.sums),
            episodes=jax.tree.map(jnp.zeros_like, progress.episodes),
        )

    def _save(self, index, progress):
        began = time.perf_counter()
        meta = {
            "phase": index,
            "seconds": dict(self.seconds),
            "since_line": self.since_line,
            "returns": self.returns,
            "evaluated": self.evaluated_updates,
            "lost": self.lost,
            "config": self.config.to_dict(),
            "clusters": None if self.clusters is None else list(self.clusters),
            "metrics_sha256": self._metrics_digest(_update(progress)),
        }
        self.checkpoints.save(_update(progress), progress, meta)
        if not self.proved:
            self.checkpoints.check_written(_update(progress), progress)
            self.proved = True
        self.seconds["checkpoint"] += time.perf_counter() - began

    def _metrics_digest(self, update):
        rows = read_metrics(self.config.out)
        steps = update * self.config.batch
        return digests.of_text(stored.metrics_text([r for r in rows if r["env_steps"] <= steps]))


def _update(progress: Progress) -> int:
    return int(np.asarray(progress.update).reshape(-1)[0])


def _logged_returns(config, update):
    """What checkpoints of 0.1.0 do not hold: the returns up to `update`, from the metrics."""
    rows = read_metrics(config.out)
    returns = returns_by_step([row for row in rows if row["env_steps"] <= update * config.batch])
    means = [(steps // config.batch, finite_mean(values)) for steps, values in returns.items()]
    return [(at, mean) for at, mean in means if mean is not None]


def _played(episodes):
    """Mean return of the episodes since the last evaluation, over all seeds."""
    count = float(np.sum(episodes.count))
    return float(np.sum(episodes.returns)) / count if count else math.nan


def _spread(progress):
    """Mean standard deviation of actions since the last evaluation; None if they are discrete."""
    if "action_std" not in progress.sums:
        return None
    updates = float(np.sum(progress.sums["updates"]))
    return float(np.sum(progress.sums["action_std"])) / updates if updates else math.nan


def _train_wins(progress, seed=slice(None)):
    """Share of the episodes since the last evaluation that were won; None without such a notion."""
    if "won" not in progress.state.runner.timestep.info:
        return None
    count = float(np.sum(progress.episodes.count[seed]))
    return float(np.sum(progress.episodes.wins[seed])) / count if count else math.nan


def _row(config, phase, update, seed, i, results, progress, speed) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    returns = np.asarray(results.returns[i], float)
    finite = returns[np.isfinite(returns)]
    bad = len(returns) - len(finite)
    finished = float(progress.episodes.count[i])
    row = {
        "env_steps": update * config.batch,
        "seed": seed,
        "phase": phase,
        "eval_return": float(finite.mean()) if len(finite) else None,
        "eval_return_std": float(finite.std()) if len(finite) else None,
        "eval_episodes": len(returns),
        **({"eval_not_finite": bad} if bad else {}),
        **_win_rate(results, i),
        "eval_length": float(np.asarray(results.lengths[i]).mean()),
        "train_return": float(progress.episodes.returns[i]) / finished if finished else None,
        "train_episodes": int(finished),
        **({} if results.won is None else {"train_win_rate": _train_wins(progress, i)}),
        "steps_per_second": speed,
    }
    updates = float(progress.sums["updates"][i])
    for name, value in progress.sums.items():
        if name != "updates":
            row[name] = float(value[i]) / updates if updates else None
    return row


def _win_rate(results, i):
    return {} if results.won is None else {"win_rate": float(np.asarray(results.won[i]).mean())}
