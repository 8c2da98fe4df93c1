"""HAPPO (Kuba et al. 2022): A2PO's turns with free ratios of the others and no traces."""

from dataclasses import dataclass

from lorasa_jax.keys import key
from lorasa_jax.learn import traces
from lorasa_jax.learn.a2po import A2po, update

__all__ = ["Happo", "update"]


@dataclass(frozen=True)
class Happo(A2po):
    """The same keys with HAPPO's defaults (Kuba et al. 2022)."""

    name: str = "happo"
    ratio: str = key(
        "joint", "whether each action dimension's ratio is clipped, or their product",
        choices=("per_dimension", "joint"),
    )  # fmt: skip
    order: str = key("random", "who comes first", choices=("semi_greedy", "random", "fixed"))
    trace: str = key("none", "how others' ratios shorten traces", choices=tuple(traces.TRACES))
    clip_schedule: str = key(
        "constant", "the clip by an agent's place", choices=("widening", "tight", "constant")
    )
    others: str = key("free", "others' ratios in the loss", choices=("clipped", "free"))
    two_stage: bool = key(False, "a step of the critic alone before every step")
