"""Full sharing, then adapters, then every agent's merged network by itself."""

import jax

from lorasa_jax import sharing
from lorasa_jax.registry import Phase


def build(given):
    shared, separate = sharing.ps(given.num_agents), sharing.nps(given.num_agents)
    adapted = sharing.adapted(shared, sharing.LoraSpec(2))

    def merged(key, banks):
        weights, axes = adapted.weights(banks)
        return {"net": jax.vmap(lambda w: w, (axes,), axis_size=given.num_agents)(weights)}

    last = separate._replace(adopt=merged)
    return sharing.Sharing((shared, adapted, last), (shared,) * 3)


phases = (Phase("share", "ps", until=0.25), Phase("adapt", until=0.5), Phase("part"))
sharing.register("share_adapt_part", build, phases=phases)
