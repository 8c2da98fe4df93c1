"""Hydra's part of the command line: its groups, made from keys, and its errors as sentences."""

import functools
import re

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from lorasa_jax import envs, keys
from lorasa_jax.config.run_keys import LOGGERS, RunKeys
from lorasa_jax.config.schema import GROUPS, PRETRAIN, Network
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import close, listed, shown

PRIMARY = "lorasa"  # the name of the configuration that all others are composed into
BLANK = "???"  # OmegaConf's mark of a value that is missing
DEFAULTS = {"env": "ant_4x2", "algo": "mappo", "sharing": "ps_lora", "logger": "local"}


def register(*more: str, blank: bool = False) -> None:
    """Makes every environment, `more`, and all that was registered a choice of Hydra's groups.

    blank: every key is missing instead of its default, which shows what is given elsewhere.
    """
    store = ConfigStore.instance()

    def section(values):
        return dict.fromkeys(values, BLANK) if blank else values

    for group, registry in GROUPS.items():
        common = keys.defaults(envs.Keys) if group == "env" else {}
        for name in (*registry.names(), *(more if group == "env" else ())):
            node = {**common, **keys.plain(registry.row(name).defaults)}
            store.store(group=group, name=name, node={"name": name, **section(node)})
    for name, kind in LOGGERS.items():
        node = {"name": name, **section(keys.defaults(kind))}
        store.store(group="logger", name=name, node=node)
    store.store(name=PRIMARY, node=_primary(section))


def _primary(section):
    quiet = [{f"override hydra/{what}": "disabled"} for what in ("job_logging", "hydra_logging")]
    return {
        "defaults": ["_self_", *({group: name} for group, name in DEFAULTS.items()), *quiet],
        **section(keys.defaults(RunKeys)),
        "pretrain": section(dict.fromkeys(PRETRAIN)),
        "network": section(keys.defaults(Network)),
        # Runs have folders of their own; Hydra's files about a batch go elsewhere.
        "hydra": {
            "run": {"dir": "."},
            "output_subdir": None,
            "sweep": {"dir": "runs/.multirun", "subdir": "."},
        },
    }


def spelled(override: str) -> str:
    """An override for Hydra: known choices of groups by their names, text as it was written.

    Raises:
      ConfigError: the choice is unknown, or text is a path that only a shell would understand.
    """
    name, equals, choice = override.partition("=")
    group = name.lstrip("+~")
    if not group or not equals:
        raise ConfigError(f"{shown(override)} is not of the form key=value.")
    if equals and group in _texts():
        return f"{name}={written(group, choice)}"
    if group not in (*GROUPS, "logger"):
        return override
    choice = choice.strip("'\"").replace("\\", "")
    if group == "logger":
        if choice not in LOGGERS:
            raise ConfigError(
                f"logger={shown(choice)} is not known; choose one of {listed(LOGGERS)}."
            )
        return f"logger={choice}"
    registry = GROUPS[group]
    return f"{group}={registry.row(registry.canonical(choice) or choice).name}"


def written(name: str, text: str) -> str:
    """Text in quotation marks, so that Hydra's grammar leaves it alone: `1e-3` is no number here.

    What is quoted already, null, and an interpolation stay as they are.

    Raises:
      ConfigError: a path begins with ~, which no program but a shell replaces.
    """
    if text.lstrip("'\"").startswith("~"):
        raise ConfigError(
            f"{name}={shown(text)} begins with ~, which the shell leaves here; write $HOME instead."
        )
    if text in ("", "null") or text[0] in "'\"" or "${" in text:
        return text
    if "\\" in text and isinstance(_value(f"{name}={text}"), str):
        return text  # with Hydra's own escapes
    return quoted(text)


def quoted(text: str) -> str:
    """Text as Hydra's grammar reads it back whatever it holds."""
    # A backslash is one only before a quotation mark.
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _value(override):
    try:
        return OverridesParser.create().parse_override(override).value()
    except HydraException:
        return None


@functools.cache
def _registered_texts(kinds):
    is_text, others = set(), set()
    for prefix, kind in kinds:
        for name in keys.keys(kind):
            (is_text if keys.is_text(kind, name) else others).add(prefix + name)
    return frozenset(is_text - others)


def _texts():
    """The keys that take text of any kind."""
    kinds = [("", RunKeys), *(("logger.", kind) for kind in LOGGERS.values())]
    for group, registry in GROUPS.items():
        kinds += [(f"{group}.", row.keys) for row in registry.rows()]
    return _registered_texts(tuple(dict.fromkeys(kinds)))


def sentence(error: HydraException, overrides: list[str]) -> str:
    """Hydra's error about some overrides, in one sentence."""
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return _ungrammatical(error.override)
    if isinstance(error, MissingConfigException):
        return f"{text.partition('. ')[0]}; give --config-dir, the folder that holds it."
    missing = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if missing:
        key = missing.group(1)
        if key.startswith("hydra"):
            return f"{key} is not a key of Hydra or of this launcher; remove it."
        known = every_key()
        if key in known:
            group = key.split(".")[0]
            chosen = [o for o in overrides if o.startswith(f"{group}=")] or [f"this {group}"]
            return f"{key} is not a key of {chosen[-1]}; remove it."
        return f"unknown key {key}; {close(key, known)}"
    for override in overrides:
        if "=" not in override:
            return f"{override} is not of the form key=value."
    return shown(text.rstrip("."), 400) + "."


def _ungrammatical(override):
    """What is wrong with an override that Hydra cannot read."""
    name, equals, value = override.partition("=")
    if not equals:
        return f"{shown(override)} is not of the form key=value."
    if not value:
        return f"{override} has no value; give one, or leave {name} out."
    return (
        f"{shown(override)} cannot be read; a text with spaces, quotation marks, brackets, commas "
        f"or letters beyond a-z goes in quotation marks of its own: \"{name}='...'\"."
    )


def every_key() -> list[str]:
    """Every key that some configuration has."""
    names = {*keys.keys(RunKeys), *GROUPS, "logger"}
    names |= {f"pretrain.{name}" for name in PRETRAIN}
    names |= {f"network.{name}" for name in keys.keys(Network)}
    names |= {f"env.{name}" for name in keys.keys(envs.Keys)}
    names |= {f"logger.{name}" for kind in LOGGERS.values() for name in keys.keys(kind)}
    for group, registry in GROUPS.items():
        names |= {f"{group}.{name}" for row in registry.rows() for name in row.defaults}
    return sorted(names)
