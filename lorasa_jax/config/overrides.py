"""Hydra's part of the command line: its groups, made from keys, and its errors as sentences."""

import re

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from lorasa_jax import envs, keys
from lorasa_jax.config.schema import GROUPS, LOGGERS, PRETRAIN, Network, RunKeys
from lorasa_jax.errors import ConfigError
from lorasa_jax.values import close, listed

PRIMARY = "lorasa"  # the name of the configuration that all others are composed into
DEFAULTS = {"env": "ant_4x2", "algo": "mappo", "sharing": "ps_lora", "logger": "local"}


def register(*more: str) -> None:
    """Makes every environment, `more`, and all that was registered a choice of Hydra's groups."""
    store = ConfigStore.instance()
    for group, registry in GROUPS.items():
        common = keys.defaults(envs.Keys) if group == "env" else {}
        for name in (*registry.names(), *(more if group == "env" else ())):
            node = {"name": name, **common, **keys.plain(registry.row(name).defaults)}
            store.store(group=group, name=name, node=node)
    for name, kind in LOGGERS.items():
        store.store(group="logger", name=name, node={"name": name, **keys.defaults(kind)})
    store.store(name=PRIMARY, node=_primary())


def _primary():
    quiet = [{f"override hydra/{what}": "disabled"} for what in ("job_logging", "hydra_logging")]
    return {
        "defaults": ["_self_", *({group: name} for group, name in DEFAULTS.items()), *quiet],
        **keys.defaults(RunKeys),
        "pretrain": dict.fromkeys(PRETRAIN),
        "network": keys.defaults(Network),
        # Runs have folders of their own; Hydra's files about a batch go elsewhere.
        "hydra": {
            "run": {"dir": "."},
            "output_subdir": None,
            "sweep": {"dir": "runs/.multirun", "subdir": "."},
        },
    }


def spelled(override: str) -> str:
    """A choice of a group as Hydra knows it, other overrides as they are.

    Raises:
      ConfigError: the choice is unknown.
    """
    group, _, choice = override.lstrip("+~").partition("=")
    if group not in (*GROUPS, "logger"):
        return override
    choice = choice.strip("'\"").replace("\\", "")
    if group == "logger":
        if choice not in LOGGERS:
            raise ConfigError(f"logger={choice} is not known; choose one of {listed(LOGGERS)}.")
        return f"logger={choice}"
    registry = GROUPS[group]
    return f"{group}={registry.row(registry.canonical(choice) or choice).name}"


def sentence(error: HydraException, overrides: list[str]) -> str:
    """Hydra's error about some overrides, in one sentence."""
    text = " ".join(str(error).split())
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
    return text.rstrip(".") + "."


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
