"""The keys of adapters: what they look like, completed for a network and checked."""

import dataclasses
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.policy.networks import layers_of
from lorasa_jax.sharing.ranks import RankKeys
from lorasa_jax.sharing.roles import RoleKeys
from lorasa_jax.sharing.seps import ClusterKeys
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.sharing.variants import KINDS
from lorasa_jax.values import listed, number, whole_number


@dataclass(frozen=True)
class LoraKeys(RankKeys):
    """What adapters look like; see LoraSpec."""

    rank: int = key(None, "rank of every adapter", least=1, cell=True)
    alpha: float | None = key(
        None, "scaling is alpha / rank; null: the rank, a scaling of 1", above=0, traced=True
    )
    targets: list | None = key(None, "layers by name or pattern; null: all of them")
    rank_pattern: dict | None = key(
        None, "other ranks for single layers, such as {gru_*: 4}; 0 leaves a layer out",
        accepts="{pattern: rank}",
    )  # fmt: skip
    alpha_pattern: dict | None = key(
        None, "other alphas for single layers", accepts="{pattern: alpha}"
    )
    bias: str = key(
        "none", "an offset per agent on the biases of adapted layers, or of all",
        choices=("none", "lora", "all"),
    )  # fmt: skip
    norms: bool = key(False, "an offset per agent on LayerNorms")

    def complete(self, network) -> "LoraKeys":
        """These keys for a network (policy.networks.Network): nothing left open, all possible.

        Raises:
          ConfigError: a layer or pattern that the network does not have.
        """
        self.check_kind()
        layers = layers_of(network.kind, network.depth)
        targets = list(layers) if self.targets is None else self.targets
        _check_targets(targets, layers)
        alpha = self.alpha
        if alpha is None and not self.rank_pattern and KINDS[self.kind].scaled:
            alpha = float(self.rank)
        adapted_ = [layer for layer in layers if any(fnmatchcase(layer, t) for t in targets)]
        if self.norms and not network.layer_norm:
            raise ConfigError(
                "sharing.norms=true needs LayerNorms; drop it or set network.layer_norm=true."
            )
        complete = dataclasses.replace(
            self,
            targets=targets,
            alpha=alpha,
            rank_pattern=_patterns(self.rank_pattern, "rank_pattern", layers, adapted_, _rank),
            alpha_pattern=_patterns(self.alpha_pattern, "alpha_pattern", layers, adapted_, _alpha),
        )
        complete.check_schedule()
        return complete


@dataclass(frozen=True)
class KeyedLoraKeys(LoraKeys, RoleKeys):
    """Adapters, and whose they are."""


@dataclass(frozen=True)
class ClusteredLoraKeys(KeyedLoraKeys, ClusterKeys):
    """Adapters on the networks of clusters."""


def spec(keys: LoraKeys) -> LoraSpec:
    """The adapters that complete keys describe."""
    assert keys.targets is not None  # LoraKeys.complete
    return LoraSpec(
        keys.rank,
        keys.alpha,
        tuple(keys.targets),
        tuple((keys.rank_pattern or {}).items()),
        tuple((keys.alpha_pattern or {}).items()),
        keys.bias,
        keys.norms,
        keys.form,
        keys.init,
        keys.scaling == "rslora",
        keys.schedule,
    )


def _rank(value, label):
    return whole_number(value, label, least=0)


def _alpha(value, label):
    if number(value, label) <= 0:
        raise ConfigError(f"{label}={value} must be above 0.")
    return number(value, label)


def _check_targets(targets, layers):
    if not isinstance(targets, list) or not targets:
        raise ConfigError(
            f"sharing.targets={targets} must be a list of layers from {listed(layers)}."
        )
    for target in targets:
        _check_match(target, layers, "sharing.targets holds")
    if len(set(targets)) < len(targets):
        raise ConfigError("sharing.targets names a layer twice; name each once.")


def _check_match(pattern, layers, subject):
    if not any(fnmatchcase(layer, str(pattern)) for layer in layers):
        raise ConfigError(f"{subject} {pattern}, which is no layer; choose from {listed(layers)}.")


def _patterns(patterns, name, layers, adapted_, convert):
    """{pattern: number} of layers that are adapted, or None."""
    if not isinstance(patterns or {}, dict):
        raise ConfigError(f"sharing.{name}={patterns} must be of the form {{layer: number}}.")
    for pattern in patterns or {}:
        _check_match(str(pattern), layers, f"sharing.{name} holds")
        if not any(fnmatchcase(layer, str(pattern)) for layer in adapted_):
            raise ConfigError(
                f"sharing.{name} holds {pattern}, which matches none of sharing.targets "
                f"({listed(adapted_)}); drop it or add the layer."
            )
    return {
        str(pattern): convert(value, f"sharing.{name}.{pattern}")
        for pattern, value in (patterns or {}).items()
    } or None
