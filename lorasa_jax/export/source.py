"""What is exported: one seed's policy at a checkpoint, every agent's weights, and its card."""

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

import lorasa_jax
from lorasa_jax.envs.normalise import EPSILON as VARIANCE_EPSILON
from lorasa_jax.errors import ConfigError
from lorasa_jax.export.policy import FORMAT_VERSION, NORMALISE
from lorasa_jax.learn.finished import Policy
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.policy.networks import EPSILON, HEAD
from lorasa_jax.training import runs
from lorasa_jax.training.stored import SUMMARY


def read(out: str, step: int | None = None, seed: int | None = None) -> Policy:
    """The policy of `seed` in the run `out`, at its end or at the checkpoint of `step`.

    Raises:
      ConfigError: there is no such checkpoint or seed, or the run goes on and no step is given.
    """
    run = runs.load(out, step)
    config = run.config
    if step is None and not (Path(out) / SUMMARY).exists():
        raise ConfigError(
            f"out={out} is unfinished, at step {run.env_steps} of {config.total_steps}; let it "
            f"finish, or give step={run.env_steps}."
        )
    return run.policy(runs.chosen_seed(out, config.seeds, seed, "policy"))


def agent_trees(policy: Policy) -> list[dict]:
    """Every agent's merged weights (paper, Algorithm 3), as numpy trees of the network.

    Includes the normalisation of observations, if there is one, see `normaliser`.
    """
    weights, axes = policy.weights
    weights = jax.tree.map(np.asarray, weights)

    def of(agent):
        agent_weights = jax.tree.map(
            lambda axis, x: x if axis is None else x[agent],
            axes,
            weights,
            is_leaf=lambda axis: axis is None,
        )
        return {**agent_weights, **normaliser(policy)}

    return [of(agent) for agent in range(policy.team.env.num_agents)]


def normaliser(policy: Policy) -> dict[str, dict[str, np.ndarray]]:
    """What turns an observation into what the network sees: clip((x - mean) * scale)."""
    if policy.statistics is None:
        return {}
    mean, variance = (np.asarray(x) for x in policy.statistics.obs[1:])
    return {NORMALISE: {"mean": mean, "scale": 1.0 / np.sqrt(variance + VARIANCE_EPSILON)}}


def named(tree: dict) -> dict[str, np.ndarray]:
    """A network's tree as {`layer.part` or `vector`: array}."""
    arrays = {}
    for layer, value in tree.items():
        parts = (
            {f"{layer}.{part}": x for part, x in value.items()} if isinstance(value, dict) else {}
        )
        arrays.update(parts or {layer: value})
    return {name: np.ascontiguousarray(x, np.float32) for name, x in sorted(arrays.items())}


def file_stems(policy: Policy) -> list[str]:
    """A file's name for every agent."""
    return [re.sub(r"[^\w.-]", "_", agent) for agent in policy.team.env.agents]


def has_masks(policy: Policy) -> bool:
    """Whether the best action depends on which ones are legal."""
    return isinstance(policy.team.distribution, Categorical)


def card(policy: Policy, agents: list[dict], kind: str, use: str) -> dict[str, Any]:
    """policy.json: all that a reader needs beside the files of the folder.

    agents: a dictionary a file; kind: the format; use: how its files are called.
    """
    config, team = policy.config, policy.team
    network, distribution = team.actor.network, team.distribution
    heads = {out: f"{HEAD}_{out}" if i else HEAD for i, out in enumerate(network.heads)}
    action = "discrete" if has_masks(policy) else "continuous"
    return {
        "format": kind,
        "format_version": FORMAT_VERSION,
        "use": use,
        "lorasa_jax": lorasa_jax.__version__,
        "env": dict(config.env),
        "plugins": list(config.plugins),
        "agents": [
            {"name": name, **agent} for name, agent in zip(team.env.agents, agents, strict=True)
        ],
        "observation_size": team.env.observation_size,
        "agent_ids": agent_ids(policy),
        "action": {"kind": action, **dataclasses.asdict(distribution)},
        "network": {
            **network.form,
            "carry_size": network.carry_size,
            "epsilon": EPSILON,
            "heads": heads,
            "vectors": list(network.vectors),
        },
        "parameters": {name: list(x.shape) for name, x in named(agent_trees(policy)[0]).items()},
        "run": {
            "out": policy.out,
            "algo": policy.algo,
            "sharing": config.sharing,
            "phase": policy.phase,
            "seed": policy.seed,
            "step": policy.step,
        },
    }


def agent_ids(policy: Policy) -> dict[str, Any]:
    """What policy.json says of the agents' ids, which whoever makes observations must add."""
    if not policy.config.env.get("agent_ids", False):
        return {"in_observation": False}
    count = policy.team.env.num_agents
    size = policy.team.env.observation_size
    scaled = policy.config.env.get("standardise", False)
    return {
        "in_observation": True,
        "features": [size - count, size],
        "what": f"the last {count} of the {size} features are a one-hot of the agent's place in "
        "`agents`" + (", standardised with the rest" if scaled else ""),
    }


def package(name: str, kind: str):
    """Imports what a format needs beside this library; ConfigError says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"format={kind} needs the package {name}, which is not installed; "
            f"pip install {name}, or choose another format."
        ) from error
