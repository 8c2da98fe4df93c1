"""Ranks that change while adapters train: AdaLoRA's budget, and DyLoRA's nested ranks.

`sharing.rank_schedule` chooses; shapes stay those of `sharing.rank`, and what a smaller rank leaves
out is zero.

adalora (Zhang et al. 2023, arXiv 2303.10512): adapters s P_i diag(l_i) Q_i of kind svd compete,
over all layers and agents, for a budget of singular values that shrinks on a cubic schedule
(Eq. 11). After every update each of a layer's r triplets has the importance (Eq. 7)

    S = s(l) + mean_d s(P) + mean_k s(Q),    s = mean of |w g| * mean of its deviation,

with running means (Eqs. 8 to 10) of the sensitivity |w g|, g being Adam's running mean of
gradients; the singular values of all but the budget's most important triplets are set to zero, from
where they may grow back. P and Q are kept near to orthonormal by a penalty (Eq. 4).

dylora (Valipour et al. 2023, arXiv 2210.07558): in every update all adapters have the first k of
their r columns only, with k drawn uniformly from 1 ... r, so that any k serves afterwards. An
update's k holds for its episodes and its gradient steps, so that both are of one policy.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import default, key, keys
from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.variants import KindKeys

IMPORTANCE, CURRENT = "importance", "rank"  # banks of what schedules remember
TRIPLET = ("left", "singular", "right")


class Schedule(NamedTuple):
    """How ranks change; see RankKeys. rank: the largest of any layer."""

    name: str
    rank: int
    target: float
    warmup: float
    settle: float
    beta: float
    orthogonality: float


@dataclass(frozen=True)
class RankKeys(KindKeys):
    """How adapters' ranks change while they train; see SCHEDULES."""

    rank_schedule: str = key(
        "none", "adalora: layers and agents compete for ranks; dylora: nested ranks, any of which "
        "serves", choices=("none", "adalora", "dylora"), later=True,
    )  # fmt: skip
    rank_target: float | None = key(
        None, "adalora's mean rank over layers and agents in the end; null: half of rank", above=0,
        later=True,
    )  # fmt: skip
    rank_warmup: float = key(
        0.1, "share of the phase before adalora's budget shrinks", least=0, below=1, later=True
    )
    rank_settle: float = key(
        0.3, "share of the phase after adalora's budget has shrunk", least=0, below=1, later=True
    )
    rank_beta: float = key(
        0.85, "decay of adalora's running means of importance", least=0, below=1, later=True
    )
    orthogonality: float = key(
        0.1, "weight of adalora's penalty on singular vectors", least=0, later=True
    )

    @property
    def form(self) -> str:
        """What adapters are (variants.FORMS), by kind and schedule."""
        return _FORMS.get(self.rank_schedule, {}).get(self.kind, self.kind)

    @property
    def schedule(self) -> Schedule | None:
        """How the ranks of complete keys change; None where they do not."""
        if self.rank_schedule == "none":
            return None
        rank = max([_rank(self), *(getattr(self, "rank_pattern", None) or {}).values()])
        target = rank / 2 if self.rank_target is None else self.rank_target
        return Schedule(
            self.rank_schedule, rank, target, self.rank_warmup, self.rank_settle, self.rank_beta,
            self.orthogonality,
        )  # fmt: skip

    def check_schedule(self) -> None:
        """Refuses keys that mean nothing to the schedule, and budgets that cannot be met.

        Raises:
          ConfigError: with one sentence.
        """
        if self.rank_schedule != "adalora":
            for name, field in keys(RankKeys).items():
                own = name not in (*keys(KindKeys), "rank_schedule")
                if own and getattr(self, name) != default(field):
                    raise ConfigError(
                        f"sharing.{name}={getattr(self, name)} means nothing to "
                        f"sharing.rank_schedule={self.rank_schedule}; drop it or choose adalora."
                    )
        kinds = _FORMS.get(self.rank_schedule)
        if kinds is not None and self.kind not in kinds:
            raise ConfigError(
                f"sharing.rank_schedule={self.rank_schedule} needs sharing.kind="
                f"{' or '.join(kinds)}, and it is {self.kind}."
            )
        for name in ("init", "lr_ratio"):
            if self.form == "svd" and getattr(self, name) != default(keys(KindKeys)[name]):
                raise ConfigError(
                    f"sharing.{name}={getattr(self, name)} means nothing to adapters P diag(l) Q, "
                    "which have no A and B; drop it."
                )
        if self.rank_warmup + self.rank_settle >= 1:
            raise ConfigError(
                f"sharing.rank_warmup={self.rank_warmup} and sharing.rank_settle="
                f"{self.rank_settle} leave nothing of the phase for the budget to shrink in; give "
                "numbers whose sum is below 1."
            )
        schedule = self.schedule
        if schedule is not None and schedule.target > schedule.rank:
            raise ConfigError(
                f"sharing.rank_target={self.rank_target} is above sharing.rank={schedule.rank}, "
                "from which it is to be reached; give less."
            )


# {schedule: {kind that it is for: what adapters then are}}
_FORMS = {"adalora": {"lora": "svd", "svd": "svd"}, "dylora": {"lora": "factored"}}


def _rank(keys_: Any) -> int:
    return keys_.rank


def scheduled(scheme: Scheme, spec: Any) -> Scheme:
    """A scheme of a bank `adapters` with the changing ranks of a LoraSpec, if it has such."""
    return scheme if spec.schedule is None else SCHEDULES[spec.schedule.name](scheme, spec.schedule)


# --- AdaLoRA ---------------------------------------------------------------------------------


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


# --- DyLoRA ----------------------------------------------------------------------------------


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


SCHEDULES = {"adalora": adalora, "dylora": dylora}
