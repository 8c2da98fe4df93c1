"""Which layers a way of sharing changes, chosen by name or pattern."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.policy.networks import layer_of, layers_of
from lorasa_jax.sharing.spec import has
from lorasa_jax.values import listed

LINEAR = ("linear_*",)  # all but recurrent layers


@dataclass(frozen=True)
class LayerKeys:
    """The layers whose kernels differ by agent; the others are shared."""

    layers: list | None = key(
        None, "layers that differ by agent, by name or pattern; null: all but recurrent ones"
    )

    def complete(self, network) -> "LayerKeys":
        """These keys for a network (policy.networks.Network).

        Raises:
          ConfigError: a layer or pattern that the network does not have.
        """
        names = layers_of(network.kind, network.depth)
        chosen = list(LINEAR) if self.layers is None else self.layers
        if not isinstance(chosen, list) or not chosen:
            raise ConfigError(
                f"sharing.layers={chosen} must be a list of layers from {listed(names)}."
            )
        for pattern in chosen:
            if not any(fnmatchcase(name, str(pattern)) for name in names):
                raise ConfigError(
                    f"sharing.layers holds {pattern}, which is no layer; choose from "
                    f"{listed(names)}."
                )
        return dataclasses.replace(self, layers=[str(pattern) for pattern in chosen])

    @property
    def patterns(self) -> tuple[str, ...]:
        return LINEAR if self.layers is None else tuple(self.layers)


def chosen(net: dict, patterns: Sequence[str]) -> list[str]:
    """The kernels of a network's parameters whose layers a pattern matches, in the order of use."""
    names = [name for name, value in net.items() if has(value, "kernel")]
    matched = [n for n in names if any(fnmatchcase(layer_of(n), p) for p in patterns)]
    return sorted(matched, key=lambda name: (depth(name), name))


def depth(name: str) -> int:
    """The number in a layer's name, by which layers are in the order of use."""
    return int(layer_of(name).rpartition("_")[2])
