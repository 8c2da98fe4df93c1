"""A safetensors export as a policy with a team again, so that it plays as a run's does."""

from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np

from lorasa_jax import envs
from lorasa_jax.config import plugins
from lorasa_jax.envs.normalise import EPSILON, Moments, Observed, nothing_seen
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import policy as reader
from lorasa_jax.export.policy import NORMALISE
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.networks import Network, RecurrentNetwork
from lorasa_jax.sharing import nps


def rebuild(folder: str | Path) -> Policy:
    """The policy that a safetensors export holds; its team has no critic and no optimisers.

    Raises:
      ConfigError: the folder holds none, or its environment is not what it was.
    """
    try:
        exported = reader.load(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    card, run = exported.card, exported.card["run"]
    team = _team(folder, card)
    weights, axes = _stacked(exported.weights)
    scaling, _ = weights.pop(NORMALISE, None), axes.pop(NORMALISE, None)
    return Policy(
        out=str(folder), env_name=card["env"]["name"], algo=run["algo"],
        sharing=run["sharing"]["name"], phase=run["phase"], seed=run["seed"], step=run["step"],
        team=team, weights=(weights, axes), statistics=_statistics(team.env, scaling),
    )  # fmt: skip


def _statistics(env, scaling) -> Observed | None:
    """The running statistics behind an export's {`mean`, `scale`} of observations."""
    if scaling is None:
        return None
    variance = 1.0 / jnp.square(scaling["scale"]) - EPSILON
    moments = Moments(jnp.ones(()), scaling["mean"], variance)
    return nothing_seen(env)._replace(obs=moments)


def _team(folder, card):
    options, action, network = card["env"], card["action"], card["network"]
    if envs.canonical(options["name"]) is None:  # policies are merged: no way of sharing is needed
        plugins.require(card.get("plugins", []))
    env = envs.make(**options)
    if action["kind"] == "discrete":
        distribution, space = Categorical(action["n"]), envs.Discrete(action["n"])
    else:
        distribution = SquashedGaussian(**{k: x for k, x in action.items() if k != "kind"})
        space = envs.Box(action["size"])
    exported = [agent["name"] for agent in card["agents"]], card["observation_size"], space
    if exported != (list(env.agents), env.observation_size, env.action_space):
        raise ConfigError(
            f"{folder} was exported for another version of {card['env']['name']}, with other "
            "agents, observations or actions; use the lorasa_jax that wrote it "
            f"({card['lorasa_jax']})."
        )
    form = {name: network[name] for name in Network().form if name in network}
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, **form)
    absent = cast(Any, None)  # to play takes neither optimiser nor critic
    role = Role(actor, nps(env.num_agents), absent, env.observation_size)
    return Team(env, distribution, role, absent)


def _stacked(agents: tuple[reader.Weights, ...]):
    """(weights, axes): what is equal for all agents is shared, as it was in training."""
    weights: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for name in agents[0]:
        arrays = [tensors[name] for tensors in agents]
        shared = all(np.array_equal(arrays[0], other) for other in arrays[1:])
        value = jnp.asarray(arrays[0] if shared else np.stack(arrays))
        layer, _, part = name.partition(".")
        for tree, leaf in ((weights, value), (axes, None if shared else 0)):
            if part:
                tree.setdefault(layer, {})[part] = leaf
            else:
                tree[layer] = leaf
    return weights, axes
