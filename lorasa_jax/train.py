"""A run: its phases, the compiled chunks of updates, evaluation, checkpoints, resuming."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax import envs, evaluate
from lorasa_jax.checkpoint import Checkpoints
from lorasa_jax.config import Config
from lorasa_jax.envs.types import Discrete
from lorasa_jax.errors import TrainingError
from lorasa_jax.learn import mappo, rollout, team, value_norm
from lorasa_jax.learn.mappo import TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy import sharing
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.lora import LoraSpec
from lorasa_jax.policy.networks import RecurrentNetwork, parameters

PHASES = ("pretrain", "finetune")
_NEVER = np.iinfo(np.int32).max


class Progress(NamedTuple):
    """A run's whole state. All but `update` has a leading seed axis outside compiled code.

    sums: reports and episodes since the last evaluation. first_bad: for every watched quantity
    the first update at which it was not finite.
    """

    state: TrainState
    update: jax.Array
    sums: dict[str, jax.Array]
    episodes: Episodes
    first_bad: dict[str, jax.Array]


@dataclass
class Phase:
    """One phase, compiled: `advance(progress, n)` runs n updates, `play` evaluates."""

    name: str
    team: Team
    end: int
    advance: Callable
    play: Callable


@dataclass
class Stop:
    """Set by SIGINT and SIGTERM; the run ends after the chunk that is under way."""

    signal: str | None = None
    _old: dict = field(default_factory=dict)

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


def build_teams(config: Config) -> tuple[Team, ...]:
    """The team of every phase: one environment, one critic, one actor scheme a phase."""
    options = dict(config.env)
    env = envs.make(options.pop("name"), **options)
    if isinstance(env.action_space, Discrete):
        distribution = Categorical(env.action_space.n)
    else:
        distribution = SquashedGaussian(env.action_space.size, config.network.log_std)
    shared = config.sharing
    spec = (
        LoraSpec(shared["rank"], shared["alpha"], shared["targets"]) if "rank" in shared else None
    )
    schemes = sharing.TABLE[shared["name"]](env.num_agents, spec)
    hidden, algo = config.network.hidden, config.algo
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, hidden)
    critic = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, hidden)
    actor_optimiser = team.adam(algo.actor_lr, algo.max_grad_norm)
    critic_optimiser = team.adam(algo.critic_lr, algo.max_grad_norm)
    return tuple(
        Team(
            env,
            distribution,
            Role(actor, scheme, actor_optimiser, env.observation_size),
            Role(critic, schemes.critic, critic_optimiser, env.state_size),
        )
        for scheme in schemes.actor_phases
    )


def hyperparameters(config: Config) -> mappo.Hyperparameters:
    names = mappo.Hyperparameters._fields
    return mappo.Hyperparameters(**{name: getattr(config.algo, name) for name in names})


def start(seed: jax.Array, team_: Team, hp: mappo.Hyperparameters) -> TrainState:
    """A fresh team, optimisers and environments from a seed []."""
    key, actor_key, critic_key, env_key = jax.random.split(jax.random.key(seed), 4)

    def learner(role, key):
        banks = role.scheme.init(key, lambda key: parameters(role.network, key, role.features))
        return team.start(role, banks)

    return TrainState(
        key,
        learner(team_.actor, actor_key),
        learner(team_.critic, critic_key),
        value_norm.init(team_.env.num_agents),
        rollout.start(env_key, team_, hp.num_envs),
    )


def switch(state: TrainState, team_: Team, phase: int) -> TrainState:
    """Into the next phase: its scheme adopts the actor's weights, the actor's optimisers restart.

    Critic, its optimiser, value statistics, environments, recurrent states, key: all go on.
    """
    key = jax.random.fold_in(state.key, phase)
    banks = team_.actor.scheme.adopt(key, state.actor.banks)
    return state._replace(actor=team.start(team_.actor, banks))


def advance(progress: Progress, n: jax.Array, team_: Team, hp) -> Progress:
    """Runs n updates of one seed; n is traced, so that every chunk length is one compilation."""

    def body(_, progress):
        state, report, episodes = mappo.update(progress.state, team_, hp)
        update = progress.update + 1
        watched = {
            **report,
            "actor parameters": _total(state.actor.banks),
            "critic parameters": _total(state.critic.banks),
        }
        return Progress(
            state,
            update,
            jax.tree.map(jnp.add, progress.sums, {**report, "updates": 1.0}),
            jax.tree.map(jnp.add, progress.episodes, episodes),
            {
                name: jnp.where(jnp.isfinite(value), bad, jnp.minimum(bad, update))
                for (name, value), bad in zip(
                    sorted(watched.items()),
                    [progress.first_bad[k] for k in sorted(watched)],
                    strict=True,
                )
            },
        )

    return jax.lax.fori_loop(0, n, body, progress)


def _total(tree):
    return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree))


def begin(state: TrainState, team_: Team, hp) -> Progress:
    """Progress of one seed at update 0."""
    _, report, _ = jax.eval_shape(lambda state: mappo.update(state, team_, hp), state)
    zero = jnp.zeros(())
    watched = (*report, "actor parameters", "critic parameters")
    return Progress(
        state,
        jnp.zeros((), jnp.int32),
        {name: zero for name in (*report, "updates")},
        Episodes(zero, zero, zero),
        {name: jnp.full((), _NEVER, jnp.int32) for name in watched},
    )


def over_seeds(function: Callable, num_seeds: int, **vmap) -> Callable:
    """`function` over a leading seed axis; a single seed runs the unbatched kernels."""
    if num_seeds > 1:
        return jax.vmap(function, **vmap)

    def single(first, *rest):
        return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], first), *rest))

    return single


def compile_phase(config: Config, index: int, team_: Team, progress: Progress) -> Phase:
    """Compiles one phase's chunk and evaluation, each once and ahead of time."""
    hp, seeds = hyperparameters(config), config.num_seeds

    def play(banks_and_seed, update):
        banks, seed = banks_and_seed
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), update)
        weights = team_.actor.scheme.weights(banks)
        return evaluate.play(key, team_, weights, episodes=config.eval_episodes)

    n = jnp.zeros((), jnp.int32)
    seed_array = jnp.array(config.seeds, jnp.uint32)
    run = over_seeds(lambda progress, n: advance(progress, n, team_, hp), seeds, in_axes=(0, None))
    # No output aliases this input twice; what cannot be donated is small.
    advance_ = jax.jit(run, donate_argnums=0).lower(progress, n).compile()
    banks = progress.state.actor.banks
    play_ = jax.jit(over_seeds(play, seeds, in_axes=(0, None)))
    play_ = play_.lower((banks, seed_array), n).compile()
    return Phase(
        PHASES[index] if len(config.phase_ends) > 1 else "train",
        team_,
        config.phase_ends[index],
        advance_,
        lambda banks, update: play_((banks, seed_array), update),
    )


class Run:
    """One training run, from its first or last checkpoint to its end or an interruption."""

    def __init__(self, config: Config, teams: tuple[Team, ...], reporter):
        self.config, self.teams, self.reporter = config, teams, reporter
        self.hp = hyperparameters(config)
        kept = config.phase_ends[:-1]
        self.checkpoints = Checkpoints(Path(config.out) / "checkpoints", kept)
        self.seconds = {"compile": 0.0, "train": 0.0, "evaluate": 0.0, "checkpoint": 0.0}
        self.since_line = [0, 0.0]  # updates and seconds of training since the last evaluation

    def __call__(self) -> bool:
        """Trains until the end; returns whether it got there, or was asked to stop."""
        config = self.config
        index, progress = self._restore() or (0, None)
        if progress is None:
            self.reporter.rewind(-1)
            progress = self._fresh(0)
        with Stop() as stop:
            phase = self._compile(index, progress)
            if _update(progress) == 0:
                self._evaluate(phase, progress)
            while _update(progress) < config.num_updates and stop.signal is None:
                if _update(progress) == phase.end:
                    index += 1
                    progress = self._switch(index, progress)
                    phase = self._compile(index, progress)
                progress = self._advance(phase, progress)
                update = _update(progress)
                if update % config.eval_every == 0 or update == phase.end:
                    progress = self._evaluate(phase, progress)
                due = update % config.checkpoint_every == 0 or update == phase.end
                if due or stop.signal is not None:
                    self._save(index, progress)
            if stop.signal is not None and _update(progress) < config.num_updates:
                self.reporter.interrupted(stop.signal, _update(progress))
                return False
        self.progress, self.phase = progress, phase
        return True

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters of one seed's finished run, by role and bank."""
        state = self.progress.state
        return {
            f"{role} {bank}": sum(leaf[0].size for leaf in jax.tree.leaves(tree))
            for role, learner in (("actor", state.actor), ("critic", state.critic))
            for bank, tree in learner.banks.items()
        }

    def _fresh(self, index):
        seeds = jnp.array(self.config.seeds, jnp.uint32)

        def one(seed):
            return begin(start(seed, self.teams[index], self.hp), self.teams[index], self.hp)

        # Seed after seed: XLA's batched QR, behind orthogonal initialisation, can hang on CPU.
        return jax.jit(lambda seeds: jax.lax.map(one, seeds))(seeds)

    def _restore(self):
        update = self.checkpoints.latest()
        if update is None:
            return None
        meta = self.checkpoints.meta(update)
        like = jax.eval_shape(lambda: self._shape(meta["phase"]))
        progress = self.checkpoints.restore(update, like)
        self.seconds.update(meta["seconds"])
        self.since_line = list(meta["since_line"])
        self.reporter.rewind(update * self.config.batch)
        return meta["phase"], progress

    def _shape(self, index):
        progress = self._fresh(0)
        for phase in range(1, index + 1):
            progress = self._switched(phase, progress)
        return progress

    def _switched(self, index, progress):
        one = over_seeds(
            lambda state: switch(state, self.teams[index], index), self.config.num_seeds
        )
        return progress._replace(state=one(progress.state))

    def _switch(self, index, progress):
        self.reporter.switched(_update(progress) * self.config.batch)
        return jax.jit(lambda progress: self._switched(index, progress))(progress)

    def _compile(self, index, progress):
        began = time.perf_counter()
        with self.reporter.compiling():
            phase = compile_phase(self.config, index, self.teams[index], progress)
        self.seconds["compile"] += time.perf_counter() - began
        return phase

    def _advance(self, phase, progress):
        config, update = self.config, _update(progress)
        ahead = [phase.end, update + config.updates_per_call]
        ahead += [
            (update // every + 1) * every for every in (config.eval_every, config.checkpoint_every)
        ]
        n = min(ahead) - update
        began = time.perf_counter()
        progress = jax.block_until_ready(phase.advance(progress, jnp.int32(n)))
        took = time.perf_counter() - began
        self.seconds["train"] += took
        self.since_line = [self.since_line[0] + n, self.since_line[1] + took]
        self._check_finite(progress)
        self.reporter.advanced(phase.name, update + n, took / n, _mean_return(progress.episodes))
        return progress

    def _check_finite(self, progress):
        bad = {
            (int(first), name, seed)
            for name, firsts in progress.first_bad.items()
            for seed, first in zip(self.config.seeds, np.asarray(firsts), strict=True)
            if first != _NEVER
        }
        if bad:
            update, name, seed = min(bad)
            others = sorted({name for at, name, of in bad if (at, of) == (update, seed)})
            last = self.checkpoints.latest()
            kept = (
                "there is no checkpoint yet"
                if last is None
                else f"the checkpoint of update {last} is kept"
            )
            raise TrainingError(
                f"update {update} of seed {seed}: {', '.join(others)} not finite; training has "
                f"stopped and {kept}."
            )

    def _evaluate(self, phase, progress):
        config, update = self.config, _update(progress)
        began = time.perf_counter()
        results = jax.block_until_ready(phase.play(progress.state.actor.banks, jnp.int32(update)))
        self.seconds["evaluate"] += time.perf_counter() - began
        updates, seconds = self.since_line
        speed = updates * config.batch * config.num_seeds / seconds if updates else None
        rows = [
            _row(config, phase.name, update, seed, i, results, progress, speed)
            for i, seed in enumerate(config.seeds)
        ]
        self.reporter.evaluated(rows)
        self.since_line = [0, 0.0]
        return progress._replace(
            sums=jax.tree.map(jnp.zeros_like, progress.sums),
            episodes=jax.tree.map(jnp.zeros_like, progress.episodes),
        )

    def _save(self, index, progress):
        began = time.perf_counter()
        meta = {"phase": index, "seconds": dict(self.seconds), "since_line": self.since_line}
        self.checkpoints.save(_update(progress), progress, meta)
        self.seconds["checkpoint"] += time.perf_counter() - began


def _update(progress: Progress) -> int:
    return int(np.asarray(progress.update).reshape(-1)[0])


def _mean_return(episodes):
    count = float(np.sum(episodes.count))
    return float(np.sum(episodes.returns)) / count if count else math.nan


def _row(config, phase, update, seed, i, results, progress, speed) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    returns = np.asarray(results.returns[i], float)
    finished = float(progress.episodes.count[i])
    row = {
        "env_steps": update * config.batch,
        "seed": seed,
        "phase": phase,
        "eval_return": float(returns.mean()),
        "eval_return_std": float(returns.std()),
        "eval_episodes": len(returns),
        **_win_rate(results, i),
        "eval_length": float(np.asarray(results.lengths[i]).mean()),
        "train_return": float(progress.episodes.returns[i]) / finished if finished else None,
        "train_episodes": int(finished),
        "steps_per_second": speed,
    }
    updates = float(progress.sums["updates"][i])
    for name, value in progress.sums.items():
        if name != "updates":
            row[name] = float(value[i]) / updates if updates else None
    return row


def _win_rate(results, i):
    return {} if results.won is None else {"win_rate": float(np.asarray(results.won[i]).mean())}
