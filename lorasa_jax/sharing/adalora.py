"""AdaLoRA: layers and agents compete for ranks (Zhang et al. 2023, arXiv 2303.10512).

Adapters s P_i diag(l_i) Q_i of kind svd compete, over all layers and agents, for a budget of
singular values that shrinks on a cubic schedule (Eq. 11). After every update each of a layer's r
triplets has the importance (Eq. 7)

    S = s(l) + mean_d s(P) + mean_k s(Q),    s = mean of |w g| * mean of its deviation,

with running means (Eqs. 8 to 10) of the sensitivity |w g|, g being Adam's running mean of
gradients; the singular values of all but the budget's most important triplets are set to zero, from
where they may grow back. P and Q are kept near to orthonormal by a penalty (Eq. 4).
"""

import jax
import jax.numpy as jnp
import optax

from lorasa_jax.errors import ConfigError
from lorasa_jax.sharing.scheme import Scheme
from lorasa_jax.sharing.spec import Schedule

IMPORTANCE = "importance"  # the bank of what is remembered
TRIPLET = ("left", "singular", "right")


def adalora(scheme: Scheme, schedule: Schedule) -> Scheme:
    """Singular values within a shrinking budget.

    A bank `importance` has the running means {layer: {mean, deviation}} of every triplet's parts.
    """
    memory = scheme.banks["adapters"]._replace(trained=False, memory=True)
    banks = {**scheme.banks, IMPORTANCE: memory}

    def with_importance(trees):
        layers = triplets(trees["adapters"])
        check_budget(layers, schedule)
        zeros = jax.tree.map(jnp.zeros_like, layers)
        return {**trees, IMPORTANCE: {"mean": zeros, "deviation": zeros}}

    def combine(parts):
        return scheme.combine({name: part for name, part in parts.items() if name != IMPORTANCE})

    def penalty(trees, key):
        del key  # nothing is drawn
        distances = orthogonality(triplets(trees["adapters"]))
        # A sum: to every agent the weight is that of its own adapters in its own loss.
        return schedule.orthogonality * distances.sum(), {"orthogonality": distances.mean()}

    def after_update(trees, opt_state, reports, when, key):
        del reports, key
        layers = triplets(trees["adapters"])
        gradients = triplets(optax.tree_utils.tree_get(opt_state["adapters"], "mu"))
        means = updated(trees[IMPORTANCE], layers, gradients, schedule.beta)
        budget = budget_at(when.share, layers, schedule)
        kept = most_important(scores(means), budget)
        adapters = dict(trees["adapters"])
        for layer, keep in kept.items():
            singular = jnp.where(keep, layers[layer]["singular"], 0.0)
            adapters[layer] = {**adapters[layer], "singular": singular}
        slots = sum(x.shape[0] for x in kept.values())
        trees = {**trees, "adapters": adapters, IMPORTANCE: means}
        return trees, opt_state, {"mean_rank": budget / slots}

    def at_rank(trees, rank):
        return trees if rank is None else {**trees, "adapters": strongest(trees["adapters"], rank)}

    def ranks(trees):
        singular = {layer: x["singular"] for layer, x in triplets(trees["adapters"]).items()}
        return {layer: jnp.sum(x != 0, axis=-1) for layer, x in singular.items()}

    return scheme._replace(
        banks=banks,
        init=lambda key, fresh: with_importance(scheme.init(key, fresh)),
        adopt=lambda key, old: with_importance(scheme.adopt(key, old)),
        combine=combine,
        penalty=penalty,
        after_update=after_update,
        at_rank=at_rank,
        ranks=ranks,
    )


def triplets(adapters: dict) -> dict:
    """{layer: {left, singular, right}} of the adapters that have such."""
    return {
        layer: {name: parts[name] for name in TRIPLET}
        for layer, parts in adapters.items()
        if "singular" in parts
    }


def check_budget(layers: dict, schedule: Schedule) -> None:
    """Refuses a budget that is larger than what there is, or of no singular value at all.

    Raises:
      ConfigError: with one sentence.
    """
    slots, total, final = _sizes(layers, schedule)
    if not 1 <= final <= total:
        raise ConfigError(
            f"sharing.rank_target={schedule.target:g} asks for {final} singular values in {slots} "
            f"adapters, which have {total} at sharing.rank={schedule.rank}, as no matrix has more "
            f"than its smaller side; give a number between {1 / slots:.3g} and {total / slots:.3g}."
        )


def _sizes(layers, schedule):
    """Adapters of all layers and agents, their singular values at first, and in the end."""
    shapes = [x["singular"].shape for x in layers.values()]
    slots, total = sum(agents for agents, _ in shapes), sum(a * r for a, r in shapes)
    return slots, total, round(schedule.target * slots)


def budget_at(share: jax.Array, layers: dict, schedule: Schedule) -> jax.Array:
    """How many singular values [] are left when a share [] of the phase is over.

    All in the warm-up, the final number in the last part, and between them (Eq. 11) the final one
    plus the others times the cube of what is left of the way, rounded.
    """
    _, total, final = _sizes(layers, schedule)
    shrinking = 1.0 - schedule.warmup - schedule.settle
    left = 1.0 - jnp.clip((share - schedule.warmup) / shrinking, 0.0, 1.0)
    return jnp.round(final + (total - final) * left**3)


def updated(means: dict, layers: dict, gradients: dict, beta: float) -> dict:
    """The running means of sensitivities |w g| and of their deviations (Eqs. 8 to 10)."""

    def running(old, new):
        return jax.tree.map(lambda a, b: beta * a + (1.0 - beta) * b, old, new)

    sensitivity = jax.tree.map(lambda w, g: jnp.abs(w * g), layers, gradients)
    mean = running(means["mean"], sensitivity)
    away = jax.tree.map(lambda x, m: jnp.abs(x - m), sensitivity, mean)
    return {"mean": mean, "deviation": running(means["deviation"], away)}


def scores(means: dict) -> dict[str, jax.Array]:
    """Every triplet's importance {layer: [agent, r]} (Eq. 7)."""
    of_parts = jax.tree.map(jnp.multiply, means["mean"], means["deviation"])
    return {
        layer: parts["singular"] + parts["left"].mean(-2) + parts["right"].mean(-1)
        for layer, parts in of_parts.items()
    }


def most_important(scores_: dict[str, jax.Array], budget: jax.Array) -> dict[str, jax.Array]:
    """{layer: [agent, r]}: whether a triplet is among the `budget` [] best of all."""
    flat = jnp.concatenate([x.reshape(-1) for x in scores_.values()])
    places = jnp.argsort(jnp.argsort(-flat)).astype(float)
    kept, start = {}, 0
    for layer, x in scores_.items():
        kept[layer] = places[start : start + x.size].reshape(x.shape) < budget
        start += x.size
    return kept


def orthogonality(layers: dict) -> jax.Array:
    """Every agent's mean [agent] over layers of |P'P - I|^2 + |QQ' - I|^2 (Eq. 4)."""

    def distance(grams):
        return jnp.sum(jnp.square(grams - jnp.eye(grams.shape[-1])[None]), axis=(-2, -1))

    precision = jax.lax.Precision.HIGHEST
    distances = [
        distance(jnp.einsum("adr,ads->ars", x["left"], x["left"], precision=precision))
        + distance(jnp.einsum("ark,ask->ars", x["right"], x["right"], precision=precision))
        for x in layers.values()
    ]
    return jnp.stack(distances).mean(0)


def strongest(adapters: dict, rank: int) -> dict:
    """Adapters with the `rank` largest singular values of each [..., r], the others zero."""
    changed = dict(adapters)
    for layer, parts in triplets(adapters).items():
        size = jnp.abs(parts["singular"])
        keep = jnp.argsort(jnp.argsort(-size, axis=-1), axis=-1) < rank
        singular = jnp.where(keep, parts["singular"], 0.0)
        changed[layer] = {**adapters[layer], "singular": singular}
    return changed
