"""Values from a command line or a file, converted without rounding or guessing."""

import difflib
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from lorasa_jax.errors import ConfigError

# What int32 counters and JAX's seeds hold, what is exact as a float, and float32's normal numbers.
LARGEST, LARGEST_SEED, EXACT = 2**31 - 1, 2**32 - 1, 2**53
SMALLEST_FLOAT, LARGEST_FLOAT = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127


def whole_number(value: Any, key: str, least: float = 1, most: float = float("inf")) -> int:
    """The whole number that was written, `8e6` and `8.0` too, where nothing of it was lost.

    Raises:
      ConfigError: it is another value, or not from `least` to `most`.
    """
    number = _whole(value)
    if number is None:
        large = isinstance(value, float) and value.is_integer()
        digits = " of fewer digits, or with all of them written" if large else ""
        raise ConfigError(f"{key}={shown(value)} must be a whole number{digits}.")
    if number < least:
        raise ConfigError(f"{key}={shown(number)} must be at least {shown(least)}.")
    if number > most:
        raise ConfigError(f"{key}={shown(number)} must be at most {shown(most)}.")
    return number


def _whole(value):
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = Decimal(value.strip())
        except InvalidOperation:
            return None
        # An exponent of any size is written in a few letters.
        if not value.is_finite() or value.adjusted() > 30 or value != value.to_integral_value():
            return None
    if isinstance(value, float) and not (value.is_integer() and abs(value) < EXACT):
        return None  # as a float it may be another number than was written
    return int(value) if isinstance(value, int | float | Decimal) else None


def number(value: Any, key: str) -> float:
    """A finite number that float32, in which is computed, has: neither infinite there nor zero.

    Raises:
      ConfigError: it is another value.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if number != number or abs(number) == float("inf"):
        raise ConfigError(f"{key}={shown(value)} must be a finite number.")
    if number and not SMALLEST_FLOAT <= abs(number) <= LARGEST_FLOAT:
        raise ConfigError(
            f"{key}={shown(value)} must be 0 or between {SMALLEST_FLOAT:.2g} and "
            f"{LARGEST_FLOAT:.2g} in size, which single precision holds."
        )
    if isinstance(value, int) and int(number) != value:
        raise ConfigError(f"{key}={shown(value)} has more digits than a number here keeps.")
    return number


def shown(value: Any, most: int = 60) -> str:
    """A value in a sentence: short, on one line."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    text = " ".join(str(value).split())
    return text if len(text) <= most else text[: most - 3] + "..."


def truth(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={shown(value)} must be true or false.")
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
