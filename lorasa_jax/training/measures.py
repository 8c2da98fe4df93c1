"""What is measured of a run: rows of metrics.jsonl, and what bar and summary say beside them."""

import math
from typing import Any

import jax
import numpy as np

from lorasa_jax import hosts
from lorasa_jax.config import Config
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.learn.rollout import Episodes
from lorasa_jax.learn.team import Team
from lorasa_jax.training.phases import Progress


def row(
    config: Config, phase: str, update: int, i: int, results, progress: Progress, speed
) -> dict[str, Any]:
    """One line of metrics.jsonl: what an evaluation and the updates before it gave seed i."""
    returns = np.asarray(results.returns[i], float)
    finite = returns[np.isfinite(returns)]
    bad = len(returns) - len(finite)
    finished = float(progress.episodes.count[i])
    won = results.won
    values = {
        "env_steps": update * config.batch,
        "seed": config.seeds[i],
        "phase": phase,
        "eval_return": float(finite.mean()) if len(finite) else None,
        "eval_return_std": float(finite.std()) if len(finite) else None,
        "eval_episodes": len(returns),
        **({"eval_not_finite": bad} if bad else {}),
        **({} if won is None else {"win_rate": float(np.asarray(won[i]).mean())}),
        "eval_length": float(np.asarray(results.lengths[i]).mean()),
        "train_return": float(progress.episodes.returns[i]) / finished if finished else None,
        "train_episodes": int(finished),
        **({} if won is None else {"train_win_rate": train_wins(progress, i)}),
        "steps_per_second": speed,
    }
    updates = float(progress.sums["updates"][i])
    for name, value in progress.sums.items():
        if name != "updates":
            values[name] = float(value[i]) / updates if updates else None
    return values


def played(episodes: Episodes) -> float:
    """Mean return of the episodes since the last evaluation, over all seeds."""
    count = float(np.sum(episodes.count))
    return float(np.sum(episodes.returns)) / count if count else math.nan


def spread(progress: Progress) -> float | None:
    """Mean standard deviation of actions since the last evaluation; None if they are discrete."""
    if "action_std" not in progress.sums:
        return None
    updates = float(np.sum(progress.sums["updates"]))
    return float(np.sum(progress.sums["action_std"])) / updates if updates else math.nan


def train_wins(progress: Progress, seed: Any = slice(None)) -> float | None:
    """Share of the episodes since the last evaluation that were won; None without such a notion."""
    if "won" not in progress.state.runner.timestep.info:
        return None
    count = float(np.sum(progress.episodes.count[seed]))
    return float(np.sum(progress.episodes.wins[seed])) / count if count else math.nan


def parameter_counts(team: Team, state: TrainState) -> dict[str, int]:
    """Numbers of parameters of one seed's finished run, by role and bank."""
    return {
        f"{role} {bank}": sum(
            leaf.size // len(leaf) for leaf in jax.tree.leaves(learner.banks[bank])
        )
        for role, learner, scheme in (
            ("actor", state.actor, team.actor.scheme),
            ("critic", state.critic, team.critic.scheme),
        )
        for bank in learner.banks
        if not scheme.banks[bank].memory
    }


def ranks(team: Team, state: TrainState) -> list[dict[str, list[int]]]:
    """Ranks {layer: [agent]} that training decided, of every seed; empty where it did not."""
    scheme, banks = team.actor.scheme, hosts.readable(state.actor.banks)
    if scheme.ranks is None:
        return []
    found = jax.tree.map(np.asarray, jax.vmap(scheme.ranks)(banks))
    index = scheme.banks["adapters"].index
    seeds = jax.tree.leaves(banks)[0].shape[0]
    return [
        {layer: [int(of_layer[seed, i]) for i in index] for layer, of_layer in found.items()}
        for seed in range(seeds)
    ]


def engine(env: Any) -> str | None:
    """The physics engine that `auto` has become, where an environment has one."""
    name = getattr(env, "engine", None)
    return name if isinstance(name, str) else None
