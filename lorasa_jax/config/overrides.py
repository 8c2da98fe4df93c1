"""The command line's `key=value` words on Hydra's side: its groups, and complaints in our words."""

import dataclasses
import re

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from lorasa_jax import envs
from lorasa_jax import sharing as sharing_table
from lorasa_jax.config.schema import Config, Network, Pretrain, algo_names, algo_type
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms
from lorasa_jax.values import close, listed

GROUPS = {
    "env": envs.names,
    "algo": algo_names,
    "sharing": lambda: tuple(sharing_table.TABLE),
    "logger": lambda: ("local", "wandb"),
}


def register(*more: str) -> None:
    """Makes every environment, `more`, and all that was registered a choice of Hydra's groups."""
    store = ConfigStore.instance()
    registered = {"sharing": sharing_table.registered(), "algo": algorithms.registered()}
    for group, rows in registered.items():
        for name, row in rows.items():
            node = {"defaults": [row.like, "_self_"], "name": name, **row.options}
            store.store(group=group, name=name, node=node)
    for name in (*envs.names(), *more):
        node = {"name": name, "agent_ids": True, "standardise": False, "normalise": "none"}
        node |= envs.options(name)
        store.store(group="env", name=name, node=node)


def spelled(override: str) -> str:
    """A choice of a group as Hydra knows it, other overrides as they are.

    Raises:
      ConfigError: the choice is unknown, in our words before Hydra's.
    """
    group, _, choice = override.lstrip("+~").partition("=")
    if group not in GROUPS:
        return override
    choice = choice.strip("'\"").replace("\\", "")
    if group == "env":
        choice = envs.canonical(choice) or choice
        known = envs.canonical(choice) is not None
    else:
        known = choice in GROUPS[group]()
    if not known:
        raise ConfigError(
            f"{group}={choice} is not known; choose one of {listed(GROUPS[group]())}."
        )
    return f"{group}={choice}"


def sentence(error: HydraException, overrides: list[str]) -> str:
    """Hydra's complaint about some overrides in one sentence."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if missing:
        key = missing.group(1)
        if key.startswith("hydra"):
            return f"{key} is not a key of Hydra or of this launcher; remove it."
        if key in _known():
            group = key.split(".")[0]
            chosen = [o for o in overrides if o.startswith(f"{group}=")] or [f"this {group}"]
            return f"{key} is not a key of {chosen[-1]}; remove it."
        return f"unknown key {key}; {close(key, _known())}"
    for override in overrides:
        if "=" not in override:
            return f"{override} is not of the form key=value."
    return text.rstrip(".") + "."


def _known():
    raw = {field.name for field in dataclasses.fields(Config)} - {"notes", "words"}
    kinds = map(algo_type, algo_names())
    raw |= {f"algo.{field.name}" for kind in kinds for field in dataclasses.fields(kind)}
    raw |= {f"pretrain.{field.name}" for field in dataclasses.fields(Pretrain)}
    raw |= {f"network.{field.name}" for field in dataclasses.fields(Network)}
    raw |= {f"sharing.{key}" for key in sharing_table.KEYS}
    raw |= {f"sharing.{key}" for row in sharing_table.registered().values() for key in row.options}
    raw |= {f"env.{key}" for name in GROUPS["env"]() for key in envs.options(name)}
    raw |= {"env.agent_ids", "env.standardise", "env.normalise"}
    return sorted(raw)
