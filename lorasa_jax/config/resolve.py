"""From a command line's overrides to one frozen, checked, fully resolved Config."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import envs, keys, sharing
from lorasa_jax.config import checks, overrides, paper, plugins, presets
from lorasa_jax.config.schema import (
    GROUPS,
    INDIFFERENT,
    LOGGERS,
    PRETRAIN,
    Config,
    Network,
    Pretrain,
    RunKeys,
    place,
    sections,
)
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms

SECTIONS = ("env", "algo", "pretrain", "sharing", "network", "logger")


def load(arguments: list[str], *, batch: bool = False) -> Config:
    """The Config of `key=value` overrides, as on the command line; batch: of a job of a batch.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    plugins.load(plugins.named(arguments))
    spelled = [overrides.spelled(override) for override in arguments]
    overrides.register(*(o.partition("=")[2] for o in spelled if o.startswith("env=")))
    try:
        with initialize(config_path=None, version_base="1.3"):
            raw = compose(overrides.PRIMARY, overrides=spelled)
    except HydraException as error:
        raise ConfigError(overrides.sentence(error, spelled)) from error
    config = resolve(raw, tuple(arguments), batch=batch)
    return dataclasses.replace(config, overrides=tuple(arguments))


def resolve(
    raw: DictConfig, arguments: tuple[str, ...] | None = None, *, batch: bool = False
) -> Config:
    """Fills null values from preset and paper, converts every value, and checks them together.

    arguments: the overrides of the command line, whose keys win over the preset; None: `raw` is a
    run's saved configuration, in which all is decided. batch: this is a job of several; `out` is
    the folder that holds theirs.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
      KeyError: a run's saved configuration lacks a key.
    """
    tree = cast(dict[str, Any], OmegaConf.to_container(raw, resolve=True))
    plugins.load(tree.setdefault("plugins", []))
    notes: list[str] = []
    env, algo, sharing_row = (
        registry.row(tree[registry.group]["name"])
        for registry in (envs.REGISTRY, algorithms.REGISTRY, sharing.REGISTRY)
    )
    cell = paper.cell(env.name, algo.cell, sharing_row.cell)
    if arguments is None:
        _require_all(tree)
    else:
        _preset(tree, cell, env.name, algo.cell, arguments, notes)
    run = {name: value for name, value in tree.items() if name not in SECTIONS}
    kinds = {"algo": algo.keys, "sharing": sharing_row.keys, "network": Network}
    values = {name: _filled(_without_name(tree[name]), kind, cell) for name, kind in kinds.items()}
    network = keys.convert(Network, values["network"], "network.")
    run_keys = keys.convert(RunKeys, _filled(run, RunKeys, cell))
    config = Config(
        **{**_fields(run_keys), "out": run_keys.out or ""},
        env=_environment(tree["env"], env.name),
        algo=dataclasses.replace(keys.convert(algo.keys, values["algo"], "algo."), name=algo.name),
        pretrain=_pretrain(tree, sharing_row, values["algo"], algo.cell),
        sharing={"name": sharing_row.name, **_sharing(sharing_row, values["sharing"], network)},
        network=network,
        logger=_logger(tree["logger"]),
    )
    checks.critic_sharing(config)
    checks.divisions(config)
    switch_at = checks.switch(config, cell, notes)
    config = dataclasses.replace(config, switch_at=switch_at, notes=tuple(notes))
    out = config.out
    if batch or not out:
        out = Path(out or "runs", _folder(config))
    return dataclasses.replace(config, out=str(out))


def _require_all(tree):
    """Raises KeyError where a run's saved configuration lacks a required key."""
    for section, kind in sections(tree).items():
        registry = GROUPS.get(section)
        outside = registry is not None and registry.row(tree[section]["name"]).outside
        values = tree[section] if section else tree
        for name, field in keys.keys(kind).items():
            optional = field.metadata["key"].later or (not section and name in INDIFFERENT)
            if name not in values and not optional and not outside:
                raise KeyError(name)


def _fields(section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in keys.keys(type(section))}


def _without_name(section):
    return {name: value for name, value in section.items() if name != "name"}


def _filled(section, kind, cell):
    """A section whose null keys have the cell's numbers."""
    fields = keys.keys(kind)

    def from_cell(name):
        return name in cell and name in fields and fields[name].metadata["key"].cell

    missing = {name: None for name in fields if from_cell(name) and name not in section}
    return {
        name: cell[name] if value is None and from_cell(name) else value
        for name, value in {**section, **missing}.items()
    }


def _environment(section, name):
    values = keys.convert(envs.keys_of(name), _without_name(section), "env.")
    if values.standardise and values.normalise != "none":
        raise ConfigError(
            "env.standardise=true and env.normalise=running exclude each other; drop one of them."
        )
    return {"name": name, **{key: keys.plain(x) for key, x in _fields(values).items()}}


def _sharing(sharing_row, section, network):
    """The keys of a way of sharing, null ones completed for the network."""
    values = keys.convert(sharing_row.keys, section, "sharing.")
    if hasattr(values, "complete"):
        values = values.complete(network)
    return _fields(values)


def _logger(section):
    name = section.get("name")
    if name not in LOGGERS:
        raise ConfigError(f"logger={name} is not known; choose one of {', '.join(LOGGERS)}.")
    values = keys.convert(LOGGERS[name], _without_name(section), "logger.")
    return {"name": name, **_fields(values)}


def _preset(tree, cell, env, algo, arguments, notes):
    """Sets the preset's keys in place, except those that the command line gives."""
    preset = keys.value_of(RunKeys, "preset", tree.setdefault("preset", "paper"), "preset")
    numbers = presets.numbers(preset, env, algo)
    explicit_keys = {override.lstrip("+").partition("=")[0] for override in arguments}
    shares = ("total_steps", "switch_at")  # which follow a run's length, as the paper's do
    cell.update({name: numbers[name] for name in shares if name in numbers})
    for name, value in numbers.items():
        section, last = place(tree, name)
        if name not in explicit_keys and name not in shares:
            section[last] = value
    for source in dict.fromkeys(row.source for row in presets.rows(preset, env, algo)):
        notes.append(f"preset={preset}: {source}")


def _pretrain(tree, sharing_row, algo, algo_cell):
    """The first phase's numbers: its own keys, else the algorithm's if set, else the paper's."""
    pretrain = tree.get("pretrain") or {}
    if len(sharing_row.phases) == 1:
        for name, value in pretrain.items():
            if value is not None:
                raise ConfigError(
                    f"pretrain.{name}={value} needs a second phase, which "
                    f"sharing={sharing_row.name} does not have; drop it or choose ps_lora."
                )
        return None
    algo_section = tree["algo"]
    sharing_cell = sharing_row.phases[0].scheme or sharing_row.cell
    cell = paper.cell(tree["env"]["name"], algo_cell, sharing_cell)
    filled = dict(pretrain)
    for name in PRETRAIN:
        if filled.get(name) is None:
            filled[name] = cell[name] if algo_section.get(name) is None else algo[name]
    return keys.convert(Pretrain, filled, "pretrain.")


def _folder(config):
    """A name for the run's folder, the same for the same run only."""
    text = json.dumps(config.decisive(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]", "_", config.env["name"])
    return f"{name}-{config.algo.name}-{config.sharing['name']}-seed{config.seed}-{digest}"
