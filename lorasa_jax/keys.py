"""Configuration keys: dataclass fields that carry default, range and one line of help.

A key is declared beside the code that uses it. What a command line accepts and refuses, and what
`--help` and the documentation say, all follow from its field.
"""

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lorasa_jax.errors import ConfigError
from lorasa_jax.values import LARGEST, close, listed, number, shown, truth, whole_number


class Key(NamedTuple):
    """What a key has besides its type and default.

    least and most are inclusive bounds, above and below exclusive ones; choices: the values that
    are allowed. cell: null takes the value from the paper's tables or a preset.
    check(value, key) -> value replaces the conversion by type; accepts describes what it takes.
    later: the key is newer than runs that did what its default says, and is no part of a run's
    identity while it has its default; a name: only where its section has the key of that name.
    traced: a number that compiled code takes as an argument (training.numbers).
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    cell: bool = False
    check: Callable[[Any, str], Any] | None = None
    accepts: str | None = None
    later: bool | str = False
    traced: bool = False


def key(default: Any, help: str, **more: Any) -> Any:
    """A field that is a key; see Key."""
    metadata = {"key": Key(help, **more)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def plugins() -> Any:
    """The key by which a reader of runs names the modules that he lets them import."""

    def check(value, label):
        from lorasa_jax.config import plugins  # which takes seconds to import

        return plugins.given(value, label)

    return key(
        (), "modules of yours that the run was trained with; a file alone cannot import any",
        check=check, accepts="a list of modules",
    )  # fmt: skip


def keys(kind: type) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass that are keys, by name."""
    return {f.name: f for f in dataclasses.fields(kind) if "key" in f.metadata}


def defaults(kind: type) -> dict[str, Any]:
    """{key: default}, as YAML has them."""
    return {name: plain(default(field)) for name, field in keys(kind).items()}


def default(field: dataclasses.Field) -> Any:
    """A field's default."""
    if field.default_factory is dataclasses.MISSING:
        return field.default
    return field.default_factory()


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    if isinstance(value, tuple | list):
        return [plain(x) for x in value]
    return {k: plain(x) for k, x in value.items()} if isinstance(value, Mapping) else value


def convert(kind: type, section: Mapping[str, Any], prefix: str = "") -> Any:
    """A dataclass of a section's values, each converted without rounding and within its range.

    Keys that the section lacks keep their defaults.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    fields = keys(kind)
    for name in section:
        if name not in fields:
            raise ConfigError(f"unknown key {prefix}{name}; {close(name, list(fields))}")
    return kind(
        **{
            name: value_of(kind, name, section[name], prefix + name)
            for name in fields
            if name in section
        }
    )


def value_of(kind: type, name: str, value: Any, label: str) -> Any:
    """One key's value, converted and checked; `label` is the key's name in messages."""
    key_ = keys(kind)[name].metadata["key"]
    if value is None and (key_.cell or _optional(kind, name)):
        return None
    if key_.check is not None:
        return key_.check(value, label)
    if key_.choices is not None:
        if value not in key_.choices or isinstance(value, bool) != _truths(key_.choices):
            raise ConfigError(_unknown(label, value, key_.choices))
        return value
    value = _typed(_type(kind, name), value, label, key_)
    _within(key_, value, label)
    return value


def _typed(kind, value, label, key_):
    if kind is int:
        least = -float("inf") if key_.least is None else key_.least
        return whole_number(value, label, least, LARGEST if key_.most is None else key_.most)
    if kind is float:
        return number(value, label)
    if kind is bool:
        return truth(value, label)
    if kind is str:
        return text(value, label)
    if kind is list and not isinstance(value, list | tuple):
        raise ConfigError(f"{label}={shown(value)} must be a list, such as [a,b].")
    if kind is dict and not isinstance(value, Mapping):
        raise ConfigError(f"{label}={shown(value)} must be pairs, such as {{a: b}}.")
    return value


def _within(key_, value, label):
    bounds = (
        (key_.least, lambda x: value >= x, "at least"),
        (key_.above, lambda x: value > x, "above"),
        (key_.most, lambda x: value <= x, "at most"),
        (key_.below, lambda x: value < x, "below"),
    )
    limits = [(x, holds, word) for x, holds, word in bounds if x is not None]
    if not all(holds(x) for x, holds, _ in limits):
        wanted = " and ".join(f"{word} {x:g}" for x, _, word in limits)
        raise ConfigError(f"{label}={shown(value)} must be {wanted}.")


def text(value: Any, label: str) -> str:
    """Words as they were written; numbers that YAML has read as such are refused.

    Raises:
      ConfigError: it is empty, or no text.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ConfigError(f"{label}={shown(value)} must be text; put it in quotation marks.")
    return value


def is_text(kind: type, name: str) -> bool:
    """Whether a key takes text of any kind, such as a path."""
    key_ = keys(kind)[name].metadata["key"]
    return key_.choices is None and key_.accepts is None and _type(kind, name) is str


def _truths(choices):
    return all(isinstance(choice, bool | None) for choice in choices)


def _unknown(label, value, choices):
    accepted = [str(c).lower() if isinstance(c, bool) else str(c) for c in choices if c is not None]
    near = close(str(value), accepted) if isinstance(value, str) else ""
    hint = f"{near} " if near.startswith("did you mean") else ""
    return f"{label}={shown(value)} is not known; {hint}choose one of {listed(accepted)}."


@functools.cache
def _hints(kind):
    return typing.get_type_hints(kind)


def _optional(kind, name):
    hint = _hints(kind)[name]
    return isinstance(hint, types.UnionType) and types.NoneType in hint.__args__


def _type(kind, name):
    """The type of a key, without None."""
    hint = _hints(kind)[name]
    if isinstance(hint, types.UnionType):
        hint = next(x for x in hint.__args__ if x is not types.NoneType)
    return typing.get_origin(hint) or hint


class Description(NamedTuple):
    """A key as help and documentation describe it."""

    name: str
    default: str
    accepts: str
    help: str


def described(kind: type, prefix: str = "") -> list[Description]:
    """Every key of a dataclass, in its order."""
    return [
        Description(
            prefix + name, _default(field), _accepts(kind, name), field.metadata["key"].help
        )
        for name, field in keys(kind).items()
    ]


def _default(field):
    value = default(field)
    if value is None:
        return "from the tables" if field.metadata["key"].cell else "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _accepts(kind, name):
    key_ = keys(kind)[name].metadata["key"]
    if key_.accepts is not None:
        return key_.accepts
    if key_.choices is not None:
        return ", ".join(str(c).lower() for c in key_.choices if c is not None)
    what = {int: "a whole number", float: "a number", bool: "true, false", str: "text"}
    parts = [what.get(_type(kind, name), "a list")]
    for value, word in (
        (key_.least, "from"), (key_.above, "above"), (key_.most, "to"), (key_.below, "below"),
    ):  # fmt: skip
        parts += [f"{word} {value:g}"] if value is not None else []
    return " ".join(parts)


def parse(kind: type, arguments: list[str], need: str | None = None) -> Any:
    """A dataclass of `key=value` arguments, each value read from its text as its key's type.

    need: a key that must be given, whose help says what it is.

    Raises:
      ConfigError: with one sentence.
    """
    values = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"{argument} is not of the form key=value.")
        if name not in keys(kind):
            raise ConfigError(f"unknown key {name}; {close(name, list(keys(kind)))}")
        if text == "null" and _optional(kind, name):
            values[name] = None
            continue
        if _type(kind, name) is bool:
            text = {"true": True, "false": False}.get(text.lower(), text)
        values[name] = value_of(kind, name, text, name)
    if need is not None and not values.get(need):
        raise ConfigError(f"give {need}=..., {keys(kind)[need].metadata['key'].help}.")
    return kind(**values)


def help_lines(descriptions: list[Description]) -> str:
    """Lines of help, a key each: name, default, what it accepts, what it is."""
    wide = max((len(x.name) for x in descriptions), default=0)
    return "".join(
        f"  {x.name:<{wide}}  {x.help} [{x.accepts}; default {x.default}]\n" for x in descriptions
    )


def table(descriptions: list[Description]) -> str:
    """A Markdown table of keys."""
    rows = [("key", "default", "accepts", "what it is"), ("---",) * 4]
    rows += [(f"`{x.name}`", x.default, x.accepts, x.help) for x in descriptions]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "".join("| " + " | ".join(row) + " |\n" for row in cells)


def help_and_leave(arguments: list[str], kind: type, usage: str) -> None:
    """Prints a program's keys and leaves with exit code 0, if `--help` is asked for."""
    if {"--help", "-h"} & set(arguments):
        print(f"{usage}\n\n{help_lines(described(kind))}", end="")
        sys.exit(0)
