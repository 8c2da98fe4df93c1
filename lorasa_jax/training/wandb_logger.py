"""Weights & Biases: the same lines as metrics.jsonl, one run per seed, without an account too."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import NamedTuple

import wandb

from lorasa_jax.config import Config
from lorasa_jax.files import write_atomically

FILE = "run_id.json"


class Identity(NamedTuple):
    """Who a run is to W&B, wherever its folder lies: the beginning of its ids, and its name."""

    id: str
    name: str


def identity(config: Config) -> Identity:
    """The identity kept in the run's folder, made where there is none yet.

    A run that was told to W&B before identities were kept has the one that followed from its path.
    """
    out = Path(config.out)
    found = kept_identity(out)
    if found is not None:
        return found
    name = out.name or out.resolve().name
    if (out / "wandb").is_dir():
        first = _first_out(config)
        place = hashlib.sha256(first.encode()).hexdigest()[:6]
        made = Identity(f"{Path(first).name}-{place}", name)
    else:
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]
        made = Identity(f"{plain}-{secrets.token_hex(4)}", name)
    write_atomically(out / FILE, json.dumps(made._asdict()) + "\n")
    return made


def kept_identity(out: str | Path) -> Identity | None:
    """The identity in a run's folder, if there is one that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        made = Identity(**json.loads((Path(out) / FILE).read_bytes()))
        if all(isinstance(part, str) and part for part in made):
            return made
    return None


def _first_out(config):
    """The folder as it was given when the run began, which a moved run's configuration holds."""
    from lorasa_jax.training import stored

    return str((stored.config(config.out) or {}).get("out") or config.out)


class WandbLogger:
    """One wandb run per seed under one group; offline where no account is configured."""

    def __init__(self, config: Config):
        online = os.environ.get("WANDB_API_KEY") or _logged_in()
        mode = os.environ.get("WANDB_MODE") or ("online" if online else "offline")
        who = identity(config)
        name = who.name
        group = config.logger["group"] or name
        tags = [config.env["name"], config.algo.name, config.sharing["name"]]
        self.runs = {
            seed: wandb.init(
                project=config.logger["project"],
                entity=config.logger["entity"],
                group=group,
                name=f"{name}-{seed}",
                id=f"{who.id}-{seed}",
                resume="allow",
                tags=tags,
                config={**config.to_dict(), "run_seed": seed},
                dir=config.out,
                mode=mode,  # pyright: ignore[reportArgumentType]  # which W&B checks
                reinit="create_new",
            )
            for seed in config.seeds
        }

    def log(self, rows):
        for row in rows:
            values = {key: value for key, value in row.items() if value is not None}
            self.runs[row["seed"]].log(values, step=row["env_steps"])

    def summarise(self, summary, curve):
        for run in self.runs.values():
            run.summary.update({"final_return": summary["eval_return"]})
            run.log({"curve": wandb.Image(str(curve))}, step=summary["env_steps"])

    def close(self):
        for run in self.runs.values():
            run.finish()


def _logged_in():
    from requests.utils import get_netrc_auth

    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return get_netrc_auth(host) is not None
