"""Every agent's network on the same observations, whoever saw them.

A network is fed each observing agent's sequences from a recurrent state of zeros, which `first`
resets. The observation keeps the id of the agent that saw it, so that only weights differ between
networks; with `own_ids` every network reads its own agent's id instead, which is how policies
that differ by id alone (full sharing) differ at all.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lorasa_jax.analysis.observations import Observations
from lorasa_jax.analysis.weights import per_agent
from lorasa_jax.envs.wrappers import AgentIds, ObservationWrapper
from lorasa_jax.learn.team import Team


def over_agents(function: Callable, team: Team, actor_weights, observations: Observations, own_ids):
    """function(parameters, carry, obs, first) of every agent, one after the other: [agent, ...].

    obs is [time, env, observer, feature], and carry and first have an observer axis too.

    Raises:
      ValueError: own_ids where the environment's observations carry no ids.
    """
    agents = team.env.num_agents
    if own_ids and not carries_ids(team.env):
        raise ValueError("own_ids needs an environment with agent_ids.")
    obs = observations.obs
    carry = team.actor.network.initial_carry(*obs.shape[1:3])
    first = jnp.broadcast_to(observations.first[..., None], obs.shape[:3])

    def one(inputs):
        agent, parameters = inputs
        agent_obs = with_id_of(agent, obs) if own_ids else obs
        return function(parameters, carry, agent_obs, first)

    # One after the other: a network's activations on a whole set are large.
    return jax.lax.map(one, (jnp.arange(agents), per_agent(actor_weights, agents)))


def outputs(
    team: Team, actor_weights, observations: Observations, *, own_ids: bool = False
) -> dict[str, jax.Array]:
    """The outputs [agent, time, env, observer, feature] of every agent's network.

    Raises:
      ValueError: own_ids where the environment's observations carry no ids.
    """

    def apply(parameters, carry, obs, first):
        return team.actor.network.apply({"params": parameters}, carry, obs, first)[1]

    return over_agents(apply, team, actor_weights, observations, own_ids)


def carries_ids(env) -> bool:
    """Whether observations end in one-hot agent ids."""
    if isinstance(env, AgentIds):
        return True
    return isinstance(env, ObservationWrapper) and carries_ids(env.env)


def with_id_of(agent: jax.Array, obs: jax.Array) -> jax.Array:
    """Observations [..., observer, feature] as they would be if `agent` [] had seen them.

    The last features are the ids, one for each observer; two of them change places, which is
    right for standardised observations too.
    """
    observers = jnp.arange(obs.shape[-2])[None]
    id_start = obs.shape[-1] - observers.size
    observer = observers.T
    swapped = jnp.where(observers == agent, observer, observers)
    source = jnp.where(observers == observer, agent, swapped)
    ids = jnp.take_along_axis(
        obs[..., id_start:], source.reshape((1,) * (obs.ndim - 2) + source.shape), axis=-1
    )
    return jnp.concatenate([obs[..., :id_start], ids], axis=-1)
