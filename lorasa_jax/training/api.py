"""Training from Python: `run = lorasa_jax.train(env="ant_4x2", sharing="ps_lora")`."""

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lorasa_jax import config as configuration
from lorasa_jax import loading
from lorasa_jax.config import Config, overrides
from lorasa_jax.learn.finished import Policy
from lorasa_jax.training import execution, reporting

_DEFAULT = object()


@dataclass(frozen=True)
class Trained:
    """A run: its folder (None if nothing was kept), its configuration, and its results.

    metrics: one row per evaluation and seed, the columns of `metrics.jsonl`. summary: that of the
    finished run, None while it trains or where it was stopped.
    """

    out: Path | None
    config: Config
    metrics: pd.DataFrame
    summary: dict[str, Any] | None
    _policies: dict[int, Policy]

    def policy(self, seed: int | None = None) -> Policy:
        """The policy of a seed at the run's last checkpoint, by default of the first seed.

        Raises:
          ConfigError: there is no checkpoint yet, or no such seed.
        """
        seed = self.config.seed if seed is None else seed
        if self.out is None and seed in self._policies:
            return self._policies[seed]
        return loading.load(self.out or "", seed=seed)

    def params(self, seed: int | None = None) -> dict[str, Any]:
        """The actor's banks of a seed, see `sharing.scheme`."""
        banks = self.policy(seed).banks
        assert banks is not None  # a run's policy has them
        return banks


def train(
    *,
    out: Any = _DEFAULT,
    callbacks: Iterable[Callable[[Trained], Any]] = (),
    **settings: Any,
) -> Trained:
    """Trains what the keys say, or goes on with it, as `python -m lorasa_jax.run` does.

    Args:
      out: the run's folder, by default one below `runs`; None keeps nothing on disk.
      callbacks: called with the run after every evaluation; one that returns True stops it, and
        what was trained is kept like that of an interrupted run.
      **settings: the command line's keys, with values as Python has them; those with a dot in
        `**{"algo.clip": 0.1}`.

    Raises:
      ConfigError: what is given cannot be run, before anything compiles.
      TrainingError: training had to stop.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return _trained(Path(folder, "run"), settings, tuple(callbacks), kept=False)
    return _trained(None if out is _DEFAULT else out, settings, tuple(callbacks), kept=True)


def configure(**settings: Any) -> Config:
    """The checked configuration that these keys mean; see `train`.

    Raises:
      ConfigError: what is given cannot be run.
    """
    return configuration.load([f"{key}={spelled(value)}" for key, value in settings.items()])


def _trained(out, settings, callbacks, kept):
    config = configure(**settings, **({} if out is None else {"out": str(out)}))

    def evaluated():
        run = _read(config, None, kept)
        return any([callback(run) is True for callback in callbacks])

    summary = execution.execute(config, evaluated if callbacks else None)
    return _read(config, summary, kept)


def _read(config, summary, kept):
    metrics = pd.DataFrame(reporting.read_metrics(Path(config.out)))
    policies = {}
    if not kept and any(Path(config.out, "checkpoints").glob("[0-9]*")):
        policies = {policy.seed: policy for policy in loading.load_all(config.out)}
    return Trained(Path(config.out) if kept else None, config, metrics, summary, policies)


def spelled(value: Any) -> str:
    """A value as the command line spells it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{spelled(k)}:{spelled(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelled, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[\w/.-]*\w[\w/.-]*", text, re.ASCII):
        return text
    return overrides.quoted(text)
