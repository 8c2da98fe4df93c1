"""Who a run is to Weights & Biases: an identity that lies in its folder and moves with it."""

import contextlib
import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from lorasa_jax.config import Config
from lorasa_jax.files import write_atomically
from lorasa_jax.training import stored

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
    return str((stored.config(config.out) or {}).get("out") or config.out)
