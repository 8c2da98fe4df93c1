"""One agent's step as StableHLO, serialised by jax.export: to load it takes jax and flatbuffers."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export as jax_export

from lorasa_jax.envs.normalise import normalised
from lorasa_jax.export.policy import NORMALISE
from lorasa_jax.export.source import agent_trees, file_stems, has_masks, package
from lorasa_jax.learn.finished import Policy

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
USE = (
    "with the packages jax and flatbuffers: "
    "step = jax.export.deserialize(bytes of an agent's file).call; "
    "carry, outputs = step(carry [batch, carry], obs [batch, observation], first [batch] bool, "
    "and for discrete actions legal [batch, actions] bool); outputs['action'] is the best action"
)


def write(folder: Path, policy: Policy) -> list[dict]:
    """Writes <agent>.stablehlo; returns each agent's {file}."""
    package("flatbuffers", "stablehlo")
    agents = []
    for stem, tree in zip(file_stems(policy), agent_trees(policy), strict=True):
        file = f"{stem}.stablehlo"
        (folder / file).write_bytes(bytes(exported(policy, tree).serialize()))
        agents.append({"file": file})
    return agents


def exported(policy: Policy, tree: dict) -> jax_export.Exported:
    """(carry, obs, first[, legal]) -> (carry, {action, and the network's outputs}) of one agent.

    The leading axis of all is a batch of any size; the weights are constants of the function.
    """
    network, distribution = policy.team.actor.network, policy.team.distribution
    tree = {name: value for name, value in tree.items() if name != NORMALISE}

    def step(carry, obs, first, legal=None):
        obs = obs if policy.statistics is None else normalised(policy.statistics.obs, obs)
        carry, outputs = network.apply({"params": tree}, carry, obs[None], first[None])
        outputs = {name: x[0] for name, x in outputs.items()}
        action = distribution.to_env(distribution.mode(outputs, legal))
        return carry, {"action": action, **outputs}

    (batch,) = jax_export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct
    arguments = [
        shape((batch, network.carry_size), jnp.float32),
        shape((batch, policy.team.env.observation_size), jnp.float32),
        shape((batch,), jnp.bool_),
    ]
    if has_masks(policy):
        arguments.append(shape((batch, distribution.n), jnp.bool_))
    return jax_export.export(jax.jit(step), platforms=PLATFORMS)(*arguments)
