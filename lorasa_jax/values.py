"""Values from a command line or a file, converted without rounding or guessing."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from lorasa_jax.errors import ConfigError


def whole_number(value: Any, key: str, least: float = 1) -> int:
    original = value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = float("nan")
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    if not ok or value != value or value in (float("inf"), -float("inf")) or int(value) != value:
        raise ConfigError(f"{key}={original} must be a whole number.")
    if value < least:
        raise ConfigError(f"{key}={int(value)} must be at least {least}.")
    return int(value)


def number(value: Any, key: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or number != number or abs(number) == float("inf"):
        raise ConfigError(f"{key}={value} must be a finite number.")
    return number


def truth(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={value} must be true or false.")
    return value


def close(key: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"the keys are {listed(names)}." if names else "there are no keys here."


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def flat(tree: dict, prefix: str = "") -> dict:
    """{`section.key`: value} of nested dictionaries."""
    entries = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            entries.update(flat(value, f"{prefix}{key}."))
        else:
            entries[prefix + key] = value
    return entries
