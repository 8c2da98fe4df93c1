"""The kept runs of experiments/results as numbers: what each was, and what its seeds ended with."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.keep import RESULTS
from lorasa_jax.training import reporting, stored

# Runs that say nothing about ways of sharing: exploration had died in them.
SUPERSEDED = (
    "ant_4x2_mappo_nps_4M_3_seeds",
    "ant_4x2_mappo_ps_4M_3_seeds",
    "ant_4x2_mappo_ps_lora_4M_3_seeds",
    "ant_4x2_mappo_ps_lora_4M",
)
LAST = 5  # evaluations whose mean is what a seed ends with


@dataclass(frozen=True)
class Kept:
    """A kept run. steps [step]; returns, and wins where its environment has them, [seed, step]."""

    name: str
    config: dict[str, Any]
    summary: dict[str, Any]
    seeds: tuple[int, ...]
    steps: np.ndarray
    returns: np.ndarray
    wins: np.ndarray | None

    @property
    def env(self) -> str:
        return self.config["env"]["name"]

    @property
    def algo(self) -> str:
        return self.config["algo"]["name"]

    @property
    def sharing(self) -> str:
        return self.config["sharing"]["name"]

    @property
    def preset(self) -> str:
        return self.config.get("preset") or "paper"

    @property
    def metric(self) -> str:
        return "return" if self.wins is None else "win_rate"

    @property
    def finished(self) -> bool:
        return bool(self.summary)

    @property
    def command(self) -> str:
        """The run's command: its summary's, or one that means the same."""
        if self.summary:
            return self.summary["command"]
        keys = "env", "algo", "sharing"
        words = [f"{key}={self.config[key]['name']}" for key in keys]
        words += [f"preset={self.preset}", f"num_seeds={len(self.seeds)}"]
        return shlex.join(["python", "-m", "lorasa_jax.run", *words])

    def ends(self) -> np.ndarray:
        """[seed]: the mean of every seed's last evaluations."""
        scores = self.returns if self.wins is None else self.wins
        return scores[:, -LAST:].mean(-1)


def read(folder: Path) -> Kept:
    """The kept run in a folder of experiments/results."""
    rows = reporting.read_metrics(folder)
    table = {(row["seed"], row["env_steps"]): row for row in rows}
    seeds = sorted({seed for seed, _ in table})
    steps = sorted({step for _, step in table})
    path = folder / stored.SUMMARY

    def values(key):
        return np.array([[table[seed, step][key] for step in steps] for seed in seeds], float)

    return Kept(
        name=str(folder.relative_to(RESULTS)),
        config=yaml.safe_load((folder / "config.yaml").read_text()),
        summary=json.loads(path.read_text()) if path.exists() else {},
        seeds=tuple(seeds),
        steps=np.array(steps),
        returns=values("eval_return"),
        wins=values("win_rate") if "win_rate" in rows[0] else None,
    )


def kept() -> list[Kept]:
    """All kept runs, in the order of their folders' names."""
    return [read(path.parent) for path in sorted(RESULTS.glob("**/metrics.jsonl"))]
