"""What of a network is adapted, and how."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from lorasa_jax.policy.networks import LAYERS, layer_of


class Schedule(NamedTuple):
    """How ranks change; see ranks.RankKeys. rank: the largest of any layer."""

    name: str
    rank: int
    target: float
    warmup: float
    settle: float
    beta: float
    orthogonality: float


class LoraSpec(NamedTuple):
    """What is adapted, and how.

    rank r and alpha (scaling alpha / r; None is alpha = r) of the layers that `targets` match, by
    name or shell pattern (see networks.LAYERS); rank_pattern and alpha_pattern, pairs of pattern
    and number, replace them for the layers they match, the first match counting.
    bias: `none`, `lora` (biases of adapted layers get an offset per agent) or `all` (all biases).
    norms: whether LayerNorms get offsets per agent. Patterns that match nothing are for the
    configuration to refuse. kind and init: see variants.FORMS. rslora: scaling alpha / sqrt(r)
    (Kalajdzievski 2023, arXiv 2312.03732). schedule: how ranks change, if they do.
    """

    rank: int
    alpha: float | None = None
    targets: Sequence[str] = LAYERS
    rank_pattern: Sequence[tuple[str, int]] = ()
    alpha_pattern: Sequence[tuple[str, float]] = ()
    bias: str = "none"
    norms: bool = False
    kind: str = "lora"
    init: str = "paper"
    rslora: bool = False
    schedule: Schedule | None = None

    def adapts(self, layer: str) -> bool:
        return any(fnmatchcase(layer, pattern) for pattern in self.targets)

    def rank_of(self, layer: str) -> int:
        return _first(self.rank_pattern, layer, self.rank)

    def scaling(self, layer: str) -> float:
        alpha = _first(self.alpha_pattern, layer, self.alpha)
        return 1.0 if alpha is None else alpha / self.divisor(layer)

    def divisor(self, layer: str) -> float:
        return self.rank_of(layer) ** 0.5 if self.rslora else self.rank_of(layer)

    def layers(self, net: dict) -> list[str]:
        """The kernels of a network's parameters that are adapted, sorted by name."""
        return [
            name
            for name in sorted(name for name, value in net.items() if has(value, "kernel"))
            if self.adapts(layer_of(name)) and self.rank_of(layer_of(name))
        ]


def _first(patterns, layer, otherwise):
    return next((value for pattern, value in patterns if fnmatchcase(layer, pattern)), otherwise)


def has(value: Any, part: str) -> bool:
    """Whether an entry of a network's parameters is a layer with such a part."""
    return isinstance(value, dict) and part in value
