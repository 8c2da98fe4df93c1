"""From a command line's overrides to one checked Config."""

from lorasa_jax.config.resolve import load, resolve
from lorasa_jax.config.schema import Config

__all__ = ["Config", "load", "resolve"]
