"""The SMAC suite on SMAX: SMAC's maps and rules in an extension of JaxMARL's SMAX.

Results on it are the suite's own, and comparable with neither SMAC's nor SMAX's. The table in
`rules` says what differs from upstream.
"""

from dataclasses import dataclass

from lorasa_jax.envs.smac.maps import MAPS, Map
from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.values import listed

__all__ = ["NAMES", "Keys", "Map", "canonical", "make"]

NAMES = tuple(f"smac_{name}" for name in MAPS)
_FOLDED = {name.casefold(): name for name in NAMES}


@dataclass(frozen=True)
class Keys:
    """What can be chosen of the SMAC suite."""

    max_steps: int | None = key(
        None, "steps until an episode is truncated; null: SMAC's limit for the map", least=1
    )


def canonical(name: str) -> str | None:
    """The registered spelling of `smac_<map>`, whatever its case; None if it is not one."""
    return _FOLDED.get(name.casefold())


def make(name: str, *, max_steps: int | None = None):
    """Builds the map `smac_<map>`.

    Args:
      max_steps: steps until an episode is truncated; None is SMAC's limit for that map.

    Raises:
      ConfigError: an unknown map, a value that is no number of steps, or JaxMARL missing.
    """
    known = canonical(name)
    if known is None:
        raise ConfigError(f"env={name} is not known; choose one of {listed(NAMES)}.")
    from lorasa_jax.envs.smac.environment import Smac

    return Smac(MAPS[known.removeprefix("smac_")], max_steps)
