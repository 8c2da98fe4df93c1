"""A safetensors export as a team again, so that it can play like a run's policy."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lorasa_jax import envs
from lorasa_jax.config import plugins
from lorasa_jax.envs.normalise import EPSILON, Moments, nothing_seen, showing
from lorasa_jax.errors import ConfigError
from lorasa_jax.export.policy import NORMALISE, Policy, load
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.networks import RecurrentNetwork
from lorasa_jax.sharing import nps


class Rebuilt(NamedTuple):
    """A team without critic and optimisers; weights and axes are as a scheme's `weights`."""

    card: dict[str, Any]
    team: Team
    weights: dict[str, Any]
    axes: dict[str, Any]


def rebuild(folder: str | Path) -> Rebuilt:
    """The team that a safetensors export holds.

    Raises:
      ConfigError: the folder holds none, or its environment is not what it was.
    """
    try:
        policy = load(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    card = policy.card
    team = _team(folder, card)
    weights, axes = _stacked(policy)
    if NORMALISE in weights:
        seen, _ = weights.pop(NORMALISE), axes.pop(NORMALISE)
        variance = 1.0 / jnp.square(seen["scale"]) - EPSILON
        statistics = nothing_seen(team.env)._replace(
            obs=Moments(jnp.ones(()), seen["mean"], variance)
        )
        team = team._replace(env=showing(team.env, statistics))
    return Rebuilt(card, team, weights, axes)


def _team(folder, card):
    options, action, network = dict(card["env"]), card["action"], card["network"]
    if envs.canonical(options["name"]) is None:  # policies are merged: no way of sharing is needed
        plugins.load(card.get("plugins", []))
    env = envs.make(options.pop("name"), **options)
    if action["kind"] == "discrete":
        distribution, space = Categorical(action["n"]), envs.Discrete(action["n"])
    else:
        distribution = SquashedGaussian(
            action["size"], action["log_std"], action.get("std_min", 0.0)
        )
        space = envs.Box(action["size"])
    there = [agent["name"] for agent in card["agents"]], card["observation_size"], space
    if there != (list(env.agents), env.observation_size, env.action_space):
        raise ConfigError(
            f"{folder} was exported for another version of {card['env']['name']}, with other "
            "agents, observations or actions; use the lorasa_jax that wrote it "
            f"({card['lorasa_jax']})."
        )
    shape = (network[key] for key in ("hidden", "kind", "depth", "layer_norm"))
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, *shape)
    role = Role(actor, nps(env.num_agents), None, env.observation_size)
    return Team(env, distribution, role, None)


def _stacked(policy: Policy):
    """(weights, axes): what is equal for all agents is shared, as it was in training."""
    weights: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for name in policy.weights[0]:
        found = [tensors[name] for tensors in policy.weights]
        shared = all(np.array_equal(found[0], other) for other in found[1:])
        value = jnp.asarray(found[0] if shared else np.stack(found))
        layer, _, part = name.partition(".")
        for tree, leaf in ((weights, value), (axes, None if shared else 0)):
            if part:
                tree.setdefault(layer, {})[part] = leaf
            else:
                tree[layer] = leaf
    return weights, axes
