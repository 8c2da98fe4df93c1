"""Learning curves of a run as plain numbers, over its seeds, from rows known to be whole."""

from pathlib import Path
from typing import Any

import numpy as np

from lorasa_jax.analysis import curves
from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import digests, runs, stored

SCORES = ("eval_return", "win_rate", "action_std")


def metrics(out: Path, config: Config) -> list[dict]:
    """The lines of a finished run's metrics.jsonl, which must be whole.

    Raises:
      ConfigError: lines are missing or damaged.
    """
    path = Path(out) / stored.METRICS
    rows, lost = stored.metrics(out)
    present = [(row["env_steps"], row["seed"]) for row in rows]
    named = all(row["phase"] in config.phase_names for row in rows)
    steps = sorted({step for step, _ in present})
    expected = sorted((step, seed) for step in steps for seed in config.seeds)
    ended = bool(steps) and steps[-1] == config.total_steps
    if lost or sorted(present) != expected or not (ended and named):
        raise ConfigError(f"{path} lacks lines; run it again in another folder.")
    digest = digests.of_text(stored.metrics_text(rows))
    if runs.summary(out).get("metrics_sha256", digest) != digest:
        raise ConfigError(
            f"{path} holds other numbers than the run wrote; run it again in another folder."
        )
    return rows


def learning(rows: list[dict], seeds: tuple[int, ...]) -> dict[str, Any]:
    """{`steps`: [step], score: {`seeds`: [seed, step], `mean`, `median`, ...: [step]}}.

    A score's `lower` and `upper` are quartiles, `low` and `high` the 95 % interval of the mean, or
    None of too few seeds (`curves.LEAST_SEEDS`); its `reference` is the mean at step 0, of the
    untrained team, or None. Scores are returns, and win rates where there are any, of greedy
    episodes, and the mean standard deviation of continuous actions while training. What is not
    finite is None.
    """
    result: dict[str, Any] = {"steps": sorted({row["env_steps"] for row in rows})}
    for score in SCORES:
        if not all(score in row for row in rows):
            continue
        at = {(row["seed"], row["env_steps"]): row[score] for row in rows}
        values = [[at[seed, step] for step in result["steps"]] for seed in seeds]
        result[score] = over_seeds(np.array(values, float), result["steps"])
    return result


def over_seeds(values: np.ndarray, steps: list[int]) -> dict[str, Any]:
    """What curves say of one score's values [seed, step]."""
    summary = curves.summary(values)
    low, high = curves.mean_interval(values) or (None, None)
    parts = {
        "seeds": values, "mean": values.mean(0), "low": low, "high": high,
        **{name: getattr(summary, name) for name in ("median", "lower", "upper")},
        "reference": values.mean(0)[0] if steps[0] == 0 else None,
    }  # fmt: skip
    return {name: None if x is None else numbers(x) for name, x in parts.items()}


def numbers(values: Any) -> Any:
    """Lists of floats with as many digits as single precision has; None where not finite."""
    if np.ndim(values):
        return [numbers(part) for part in values]
    return float(f"{float(values):.8g}") if np.isfinite(values) else None
