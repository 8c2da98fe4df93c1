"""A run's small files, read with doubt: the one way in which training and every reader read them.

What is damaged is told in a sentence, never taken for something else.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

from lorasa_jax.errors import ConfigError
from lorasa_jax.files import MOST_TEXT, plain_yaml, read_bounded
from lorasa_jax.sharing import clustering
from lorasa_jax.training import digests
from lorasa_jax.values import listed

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
CLUSTERS = "clusters.json"
MOST_METRICS = 2**31  # bytes that are read; a run of days writes some millions
_SUMMARISED = ("env", "algo", "sharing", "seeds", "env_steps", "eval_return_per_seed", "parameters")
_REWRITE = "give the run's command again, which writes it anew"


class Metrics(NamedTuple):
    """The rows of a run's metrics.jsonl, and how many of its lines are no rows."""

    rows: list[dict]
    lost: int


def metrics(out: str | Path) -> Metrics:
    """The rows of a run, in the order of their lines; none where there is no file.

    A line that is no row is left out and counted: one cut short by a crash, one that is no text,
    no JSON or no evaluation, or a second one of the same step and seed.

    Raises:
      ConfigError: the file is a folder, or may not be read.
    """
    content = _content(Path(out) / METRICS)
    rows: dict[tuple[int, int], dict] = {}
    lines = [] if content is None else [line for line in content.split(b"\n") if line.strip()]
    for line in lines:
        row = _row(line)
        if row is not None:
            rows.setdefault((row["env_steps"], row["seed"]), row)
    return Metrics(list(rows.values()), len(lines) - len(rows))


def _row(line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds = {"env_steps": int, "seed": int, "phase": str, "eval_return": float | int | None}
    if not isinstance(row, dict) or any(key not in row for key in kinds):
        return None
    right = all(isinstance(row[k], t) and not isinstance(row[k], bool) for k, t in kinds.items())
    return row if right and row["env_steps"] >= 0 else None


def metrics_text(rows: list[dict]) -> str:
    """The lines of rows, as they stand in metrics.jsonl; what is not finite is null."""
    return "".join(json.dumps(_finite(row)) + "\n" for row in rows)


def _finite(row):
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def summary(out: str | Path) -> dict | None:
    """The summary of the finished run in `out`, as `reporting.summarise` made it; None: unfinished.

    Raises:
      ConfigError: it is damaged.
    """
    path = Path(out) / SUMMARY
    content = _content(path)
    if content is None:
        return None
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged; {_REWRITE}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} lacks everything; {_REWRITE}.")
    missing = [key for key in _SUMMARISED if key not in values]
    if missing:
        raise ConfigError(f"{path} lacks {listed(missing)}; {_REWRITE}.")
    if not digests.intact(values):
        raise ConfigError(
            f"{path} is damaged: it holds other values than were written; {_REWRITE}."
        )
    return values


def config(out: str | Path) -> dict[str, Any] | None:
    """A run's configuration as it stands in its file; None where there is none.

    Raises:
      ConfigError: it is damaged.
    """
    path = Path(out) / CONFIG
    content = _content(path)
    if content is None:
        return None
    try:
        tree = plain_yaml(content)
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged and cannot be read; give the run's command again, which mends it "
            "where a checkpoint is whole."
        ) from error
    if not isinstance(tree, dict) or not isinstance(tree.get("env"), dict):
        raise ConfigError(f"{path} is damaged and cannot be read; it holds no run's keys.")
    return cast(dict[str, Any], tree)


def clusters(out: str | Path, agents: int, given: Any = None) -> tuple[int, ...] | None:
    """The group of every agent, as a run wrote them into its folder; None where it did not.

    agents: how many there are. given: the groups that `sharing.clusters` asks for, if any.

    Raises:
      ConfigError: they are damaged, or no groups of so many agents, or others than those given.
    """
    path = Path(out) / CLUSTERS
    content = _content(path)
    if content is None:
        return None
    try:
        groups = json.loads(content)["clusters"]
        valid = all(type(group) is int for group in groups) and len(groups) == agents
        valid = valid and clustering.renumbered(groups) == tuple(groups)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged and cannot be read; run it again.") from error
    if not valid:
        raise ConfigError(
            f"{path} is damaged: it must hold a group for each of the {agents} agents, numbered "
            "from 0 in their order; run it again."
        )
    if given is not None and clustering.renumbered(given) != tuple(groups):
        raise ConfigError(
            f"{path} holds other groups than sharing.clusters={list(given)}; run it again."
        )
    return tuple(groups)


def _content(path: Path) -> bytes | None:
    """A file's bytes; None where there is none.

    Raises:
      ConfigError: it is something else than a file, or may not be read.
    """
    try:
        if path.is_file():
            return read_bounded(path, MOST_METRICS if path.name == METRICS else MOST_TEXT)
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} is no file, where a run has one; move it away.")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    return None
