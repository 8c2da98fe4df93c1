"""Every other agent shares a network."""

from lorasa_jax import sharing


def build(given):
    index = tuple(agent % 2 for agent in range(given.num_agents))
    return sharing.Sharing((sharing.grouped(index),), (sharing.ps(given.num_agents),))


sharing.register("every_other", build)
