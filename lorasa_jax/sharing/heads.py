"""Multi-task learning: agents share a trunk, and each has a head of its own."""

import jax
import numpy as np

from lorasa_jax.policy.networks import HEAD, layer_of
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.scheme import Bank, Scheme
from lorasa_jax.sharing.ways import Sharing, register


def mtl(num_agents: int) -> Scheme:
    """Multi-task learning: one trunk for all, a head (and free log-std) for every agent."""
    agents = tuple(range(num_agents))
    banks = {"trunk": Bank((0,) * num_agents), "head": Bank(agents)}

    def init(key, fresh):
        nets = jax.lax.map(fresh, jax.random.split(key, num_agents))
        trunk, head = _split_head(nets)
        return {"trunk": jax.tree.map(lambda x: x[:1], trunk), "head": head}

    def adopt(key, old):
        """The first network's trunk, and its head as every agent's own."""
        del key
        trunk, head = _split_head(old["net"])
        rows = np.zeros(num_agents, int)
        return {
            "trunk": jax.tree.map(lambda x: x[:1], trunk),
            "head": jax.tree.map(lambda x: x[rows], head),
        }

    def combine(parts):
        (trunk, trunk_axes), (head, head_axes) = parts["trunk"], parts["head"]
        return {**trunk, **head}, {**trunk_axes, **head_axes}

    return Scheme(banks, init, adopt, combine)


def _split_head(net):
    """(trunk, head): the head is the last layer with all its outputs, and free vectors."""
    head = {
        name for name, value in net.items() if layer_of(name) == HEAD or not isinstance(value, dict)
    }
    return (
        {name: value for name, value in net.items() if name not in head},
        {name: value for name, value in net.items() if name in head},
    )


def _mtl(given):
    return Sharing((mtl(given.num_agents),), (ps(given.num_agents),))


register("mtl", _mtl, cell="mtl")
