"""Merged weights as safetensors, one file an agent, with the reader beside them."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from lorasa_jax.export import policy as reader
from lorasa_jax.export.source import agent_trees, file_stems, named
from lorasa_jax.learn.finished import Policy

USE = (
    "policy.py: policy = load(FOLDER); carry = policy.initial_carry(batch); "
    "carry, action = policy.act(obs, carry, first, legal)"
)


def write(folder: Path, policy: Policy) -> list[dict]:
    """Writes <agent>.safetensors and policy.py; returns each agent's {file, sha256}."""
    copy_reader(folder)
    return [
        store(folder, f"{stem}.safetensors", named(tree))
        for stem, tree in zip(file_stems(policy), agent_trees(policy), strict=True)
    ]


def copy_reader(folder: Path) -> None:
    """Puts the reader into an export, so that it can be used without this library."""
    shutil.copyfile(reader.__file__, folder / "policy.py")


def store(folder: Path, file: str, weights: dict[str, np.ndarray]) -> dict[str, str]:
    """Writes tensors; returns {file, sha256}."""
    data = save(weights)
    (folder / file).write_bytes(data)
    return {"file": file, "sha256": hashlib.sha256(data).hexdigest()}
