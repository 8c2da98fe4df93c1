"""What can be chosen by name: environments, ways of sharing, algorithms, as rows of one shape.

The package's own rows go through the same `register` functions as a plugin's (`envs.register`,
`sharing.register`, `learn.algorithms.register`), and cannot be replaced.
"""

import contextlib
import dataclasses
import keyword
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import defaults, key, keys
from lorasa_jax.values import close, listed

RESERVED = ("name", "defaults")


class Phase(NamedTuple):
    """One phase of a run: its name, and the share of the run at which it ends.

    scheme: the way of sharing that this phase is by itself; it decides which numbers of the paper
    the phase takes, and which runs' checkpoints `init_from` accepts for it. until: the share of
    the run at whose end the next phase begins, where neither the command line nor the paper says
    it.
    """

    name: str = "train"
    scheme: str | None = None
    until: float = 1.0


@dataclass(frozen=True)
class NoKeys:
    """Nothing to choose."""


@dataclass(frozen=True)
class Row:
    """Something that can be chosen by name.

    make builds it: an environment from its options, a way of sharing from `Given`, an algorithm
    is its update. keys: the dataclass of its own keys. cell: the row of the paper's tables whose
    numbers it takes; environments have none. phases: of a way of sharing, at least one.
    canonical(text): the registered spelling of names that are not listed or are spelt otherwise,
    or None. registered: what `register` was called with, by which another process registers it
    too.
    """

    name: str
    make: Callable[..., Any]
    keys: type = NoKeys
    cell: str = ""
    phases: tuple[Phase, ...] = (Phase(),)
    canonical: Callable[[str], str | None] | None = None
    outside: bool = False
    registered: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), MappingProxyType({}))

    @property
    def defaults(self) -> dict[str, Any]:
        """{key: default} of its own keys."""
        return defaults(self.keys)

    @property
    def clustered(self) -> bool:
        """Whether it needs the group of every agent."""
        return "clusters" in keys(self.keys)


class Registry:
    """The rows of one kind; group is the key that chooses one, called says what they are."""

    def __init__(self, group: str, called: str):
        self.group, self.called = group, called
        self._rows: dict[str, Row] = {}
        self._complete = False

    def register(self, row: Row) -> None:
        """Adds a row; one from outside the package takes the place of an earlier one.

        Raises:
          ConfigError: the name is no plain word, or the package's own.
        """
        if not self._complete:
            self._rows[row.name] = row
            return
        builtin = row.name in self._rows and not self._rows[row.name].outside
        if builtin or row.name in RESERVED or not row.name.isidentifier():
            raise ConfigError(
                f"{row.name!r} cannot be the name of your {self.called}; choose another, of "
                "letters, digits and underscores."
            )
        self._rows[row.name] = dataclasses.replace(row, outside=True)

    def complete(self) -> None:
        """Ends the package's own rows; rows registered from now on are from outside."""
        self._complete = True

    def names(self) -> tuple[str, ...]:
        """Every listed name."""
        return tuple(self._rows)

    def rows(self) -> tuple[Row, ...]:
        """Every row."""
        return tuple(self._rows.values())

    def outside(self) -> tuple[Row, ...]:
        """The rows from outside the package."""
        return tuple(row for row in self._rows.values() if row.outside)

    def canonical(self, text: str) -> str | None:
        """The registered spelling of a name, or None."""
        if text in self._rows:
            return text
        spellings = {row.canonical for row in self._rows.values() if row.canonical is not None}
        for spelling in spellings:
            name = spelling(text)
            if name is not None:
                return name
        return None

    def row(self, name: str) -> Row:
        """The row of a name.

        Raises:
          ConfigError: it is not known; the sentence tells the nearest, or all.
        """
        if name in self._rows:
            return self._rows[name]
        for row in self._rows.values():
            if row.canonical is not None and row.canonical(name) == name:
                return dataclasses.replace(row, name=name)
        raise ConfigError(f"{self.group}={name} is not known; {self._hint(str(name))}")

    def _hint(self, name):
        near = close(name, list(self._rows))
        first = f"{near} " if near.startswith("did you mean") else ""
        return f"{first}choose one of {listed(self._rows)}."

    def like(self, name: str) -> Row:
        """The package's row from which one from outside takes phases, keys and numbers.

        Raises:
          ConfigError: it is not a row of the package.
        """
        rows = {n: row for n, row in self._rows.items() if not row.outside}
        if name not in rows:
            raise ConfigError(f"like={name} is not known; choose one of {listed(rows)}.")
        return rows[name]

    @contextlib.contextmanager
    def temporary(self) -> Iterator[None]:
        """Removes on exit what was registered inside."""
        saved = dict(self._rows)
        try:
            yield
        finally:
            self._rows = saved


def extended(kind: type, options: Mapping[str, Any] | type | None, called: str, taken=()) -> type:
    """The keys of a row from outside: those of the row that it is like, and its own.

    options: {key: default}, or a dataclass of keys. taken: further names that are in use.

    Raises:
      ConfigError: a key's name is in use, or is no plain word.
    """
    if not options:
        return kind
    if isinstance(options, type):
        added = [(n, f.type, f) for n, f in keys(options).items()]
    else:
        added = [(n, _annotation(value), key(value, "")) for n, value in options.items()]
    for name, *_ in added:
        wrong = name in (*RESERVED, *taken) or name in keys(kind) or keyword.iskeyword(name)
        if wrong or not name.isidentifier():
            raise ConfigError(
                f"{name!r} cannot be a key of your {called}; choose another, of letters, digits "
                "and underscores."
            )
    return dataclasses.make_dataclass(kind.__name__, added, bases=(kind,), frozen=True)


def _annotation(value):
    """The type that a key with this default converts to; Any where it is no plain value."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind
    return Any


def require_plain(options: Mapping[str, Any] | type | None, prefix: str) -> None:
    """Refuses defaults that are not numbers, strings or booleans.

    Raises:
      ConfigError: with the key.
    """
    if options is None or isinstance(options, type):
        return
    for name, value in options.items():
        finite = not isinstance(value, float) or math.isfinite(value)
        if _annotation(value) is Any or not finite:
            raise ConfigError(
                f"{prefix}.{name}={value} must be a number, a word, true or false by default."
            )
