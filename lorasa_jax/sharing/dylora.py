"""DyLoRA: adapters any of whose ranks serves (Valipour et al. 2023, arXiv 2210.07558).

In every update all adapters have the first k of their r columns only, with k drawn uniformly from
1 ... r, so that any k serves afterwards. An update's k holds for its episodes and its gradient
steps, so that both are of one policy.
"""

import jax
import jax.numpy as jnp

from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.spec import Schedule

CURRENT = "rank"  # the bank of what is remembered


def dylora(scheme: Scheme, schedule: Schedule) -> Scheme:
    """Adapters of the first k columns, k being drawn anew between updates.

    A bank `rank` {k: [1]} has the current k, as a float; a layer of a lower rank has all of its
    columns where k is above it.
    """
    agents = len(scheme.banks["adapters"].index)
    banks = {**scheme.banks, CURRENT: Bank((0,) * agents, trained=False, memory=True)}

    def with_rank(trees):
        return {**trees, CURRENT: {"k": jnp.full(1, float(schedule.rank))}}

    def combine(parts):
        (adapters, axes), (current, _) = parts["adapters"], parts[CURRENT]
        rest = {name: part for name, part in parts.items() if name != CURRENT}
        return scheme.combine({**rest, "adapters": (nested(adapters, current["k"]), axes)})

    def after_update(trees, opt_state, reports, when, key):
        del reports, when
        k = jax.random.randint(key, (1,), 1, schedule.rank + 1).astype(float)
        return {**trees, CURRENT: {"k": k}}, opt_state, {"rank": trees[CURRENT]["k"][0]}

    def at_rank(trees, rank):
        rank = schedule.rank if rank is None else min(rank, schedule.rank)
        return {**trees, CURRENT: {"k": jnp.full_like(trees[CURRENT]["k"], rank)}}

    return scheme._replace(
        banks=banks,
        init=lambda key, fresh: with_rank(scheme.init(key, fresh)),
        adopt=lambda key, old: with_rank(scheme.adopt(key, old)),
        combine=combine,
        after_update=after_update,
        at_rank=at_rank,
    )


def nested(adapters: dict, k: jax.Array) -> dict:
    """Adapters {layer: {a: [..., d, r], ...}} whose A has its first k [] columns, the rest zero."""
    changed = dict(adapters)
    for layer, parts in adapters.items():
        if "a" in parts:
            columns = (jnp.arange(float(parts["a"].shape[-1])) < k).astype(float)
            changed[layer] = {**parts, "a": times(parts["a"], columns)}
    return changed
