"""In which order agents are updated: functions (key, score [agent]) -> agents [place].

score: how much there is to learn about an agent. The key is consumed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


def semi_greedy(key: jax.Array, score: jax.Array) -> jax.Array:
    """By turns the best score that is left, and one of the others at random."""
    n = score.shape[0]

    def choose(remaining, inputs):
        place, key = inputs
        best = jnp.argmax(jnp.where(remaining, score, -jnp.inf))
        drawn = jax.random.categorical(key, jnp.where(remaining, 0.0, -jnp.inf))
        agent = jnp.where(place % 2 == 0, best, drawn)
        return remaining.at[agent].set(False), agent

    places = jnp.arange(n), jax.random.split(key, n)
    return jax.lax.scan(choose, jnp.ones(n, bool), places)[1]


def random(key: jax.Array, score: jax.Array) -> jax.Array:
    """Every order with the same probability."""
    return jax.random.permutation(key, score.shape[0])


def fixed(key: jax.Array, score: jax.Array) -> jax.Array:
    """As the environment lists its agents."""
    del key
    return jnp.arange(score.shape[0])


ORDERS = {"semi_greedy": semi_greedy, "random": random, "fixed": fixed}


class Place(NamedTuple):
    """Whose turn it is: agent [], its place [] in the round from 0 on, the turn's key.

    earlier [agent]: those before it in the round; others [agent]: those that were updated since
    the trajectory was played, itself left out.
    """

    agent: jax.Array
    place: jax.Array
    key: jax.Array
    earlier: jax.Array
    others: jax.Array


def places(agents: jax.Array, index: jax.Array, key: jax.Array) -> Place:
    """All turns [place, ...] of a round by its order `agents` [place]; index []: its number."""
    n = agents.shape[0]

    def at(place):
        agent = agents[place]
        earlier = jnp.zeros(n, bool).at[agents].set(jnp.arange(n) < place)
        others = (earlier | (index > 0)) & (jnp.arange(n) != agent)
        return Place(agent, place, jax.random.fold_in(key, place), earlier, others)

    return jax.vmap(at)(jnp.arange(n))
