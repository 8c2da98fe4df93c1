"""A run: chunks of updates between evaluations, checkpoints, the switch, and interruptions."""

import contextlib
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import hosts
from lorasa_jax.config import Config
from lorasa_jax.errors import TrainingError
from lorasa_jax.learn.team import Team
from lorasa_jax.training import measures, phases, switching
from lorasa_jax.training.checkpoint import Checkpoints
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.program import Program
from lorasa_jax.training.reporting import finite_mean, read_metrics
from lorasa_jax.training.restore import restored
from lorasa_jax.training.stop import Stop
from lorasa_jax.training.together import Member


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
            while _update(progress) < config.num_updates and not stop.asked():
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
                if due or callback or stop.asked():
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
        rows = hosts.led(lambda: read_metrics(self.config.out))
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

    def _restore(self):
        """(phase, progress) of the newest checkpoint that is whole, if any."""
        say = self.reporter.say
        found, self.lost = restored(self.config, self.teams, self.checkpoints, say)
        if found is None:
            return None
        update, meta, progress = found
        self.seconds.update(meta["seconds"])
        self.since_line = list(meta["since_line"])
        self.lost += meta.get("lost", 0)
        self.returns, self.evaluated_updates = meta["returns"], meta["evaluated"]
        batch = self.config.batch
        evaluated = tuple(at * batch for at in self.evaluated_updates)
        self.reporter.rewind(update * batch, evaluated, meta.get("metrics_sha256"))
        return meta["phase"], progress

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
            phase.name, update + n, took / n, measures.played(progress.episodes),
            measures.train_wins(progress), measures.spread(progress),
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
            measures.row(config, phase.name, update, i, results, progress, speed)
            for i in range(config.num_seeds)
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
            "metrics_sha256": self.reporter.metrics_digest(),
            "reported": [name for name in progress.sums if name != "updates"],
        }
        self.checkpoints.save(_update(progress), progress, meta)
        if not self.proved:
            self.checkpoints.check_written(_update(progress), progress)
            self.proved = True
        self.seconds["checkpoint"] += time.perf_counter() - began


def _update(progress: Progress) -> int:
    return int(np.asarray(progress.update).reshape(-1)[0])
