"""From a command line's overrides to one frozen, checked, fully resolved Config."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lorasa_jax import envs, keys, sharing
from lorasa_jax.config import checks, filling, overrides, paper, plugins
from lorasa_jax.config.flags import Files
from lorasa_jax.config.run_keys import LOGGERS, RunKeys
from lorasa_jax.config.schema import (
    GROUPS,
    INDIFFERENT,
    Config,
    Network,
    sections,
)
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms
from lorasa_jax.values import flat, shown

SECTIONS = ("env", "algo", "pretrain", "sharing", "network", "logger")


def load(arguments: list[str], *, batch: bool = False, files: Files | None = None) -> Config:
    """The Config of `key=value` overrides, as on the command line; batch: of a job of a batch.

    files: YAML of the user's own, whose values count as given.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    plugins.load(plugins.named(arguments))
    spelled = [overrides.spelled(override) for override in arguments]
    names = [word.partition("=")[2] for word in spelled if word.startswith("env=")]
    given = {override.lstrip("+").partition("=")[0] for override in arguments}
    if files is not None and files.words:
        overrides.register(*names, blank=True)
        given |= _given(_composed(spelled, files))
    overrides.register(*names)
    raw = _composed(spelled, files or Files())
    config = resolve(raw, tuple(arguments), batch=batch, given=frozenset(given))
    return dataclasses.replace(config, overrides=(*(files or Files()).words, *arguments))


def _composed(words: list[str], files: Files) -> DictConfig:
    """What Hydra makes of overrides and files."""
    place = (
        initialize(config_path=None, version_base="1.3")
        if files.folder is None
        else initialize_config_dir(files.folder, version_base="1.3")
    )
    try:
        with place:
            return compose(files.name or overrides.PRIMARY, overrides=words)
    except HydraException as error:
        raise ConfigError(overrides.sentence(error, words)) from error
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        text = shown(str(error), 200).rstrip(".")
        raise ConfigError(f"the configuration cannot be read ({text}); mend it.") from error


def _given(raw: DictConfig) -> set[str]:
    """The keys that have values where all defaults are blank."""
    tree = cast(dict[str, Any], OmegaConf.to_container(raw, resolve=False))
    return {name for name, value in flat(tree).items() if value != overrides.BLANK}


def _tree(raw: DictConfig, resolve: bool) -> dict[str, Any]:
    """A configuration as dictionaries, with every section that there must be.

    Raises:
      ConfigError: an interpolation fails, or a section is missing or is none.
      KeyError: a saved configuration, which is not resolved, lacks a section.
    """
    try:
        tree = OmegaConf.to_container(raw, resolve=resolve)
    except OmegaConfBaseException as error:
        text = shown(str(error), 200).rstrip(".")
        raise ConfigError(f"an interpolation cannot be resolved ({text}); mend it.") from error
    assert isinstance(tree, dict)
    for section in SECTIONS:
        value = tree.get(section)
        if section == "pretrain" and value is None:
            continue
        if not resolve and section not in tree:
            raise KeyError(section)
        if not isinstance(value, dict):
            what = "is missing" if section not in tree else f"={shown(value)} is no section"
            raise ConfigError(
                f"{section}{'' if section in tree else ' '}{what}; give its keys, such as "
                f"{section}.key=value, and begin YAML of your own with `defaults: "
                f"[{overrides.PRIMARY}, _self_]`."
            )
        named = section in (*GROUPS, "logger")
        if named and not isinstance(value.get("name"), str):
            raise ConfigError(f"{section}.name={shown(value.get('name'))} must be a name.")
    return cast(dict[str, Any], tree)


def resolve(
    raw: DictConfig,
    arguments: tuple[str, ...] | None = None,
    *,
    batch: bool = False,
    given: frozenset[str] | None = None,
) -> Config:
    """Fills null values from preset and paper, converts every value, and checks them together.

    arguments: the overrides of the command line; None: `raw` is a run's saved configuration, in
    which all is decided, interpolations are text, and plugins are not imported. batch: this is a
    job of several; `out` is the folder that holds theirs. given: the keys that win over the
    preset, by default those of the arguments.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
      KeyError: a run's saved configuration lacks a key.
    """
    tree = _tree(raw, resolve=arguments is not None)
    if arguments is not None:
        plugins.load(plugins.named(list(arguments)))
    plugins.require(tree.setdefault("plugins", []))
    if given is None and arguments is not None:
        given = frozenset(word.lstrip("+").partition("=")[0] for word in arguments)
    notes: list[str] = []
    env, algo, sharing_row = (
        registry.row(tree[registry.group]["name"])
        for registry in (envs.REGISTRY, algorithms.REGISTRY, sharing.REGISTRY)
    )
    cell = paper.cell(env.name, algo.cell, sharing_row.cell)
    if given is None:
        _require_all(tree)
    else:
        filling.take_preset(tree, cell, env.name, algo.cell, given, notes)
    run = {name: value for name, value in tree.items() if name not in SECTIONS}
    kinds = {"algo": algo.keys, "sharing": sharing_row.keys, "network": Network}
    values = {
        name: filling.filled(_without_name(tree[name]), kind, cell) for name, kind in kinds.items()
    }
    network = keys.convert(Network, values["network"], "network.")
    run_keys = keys.convert(RunKeys, filling.filled(run, RunKeys, cell))
    config = Config(
        **{**_fields(run_keys), "out": run_keys.out or ""},
        env=_environment(tree["env"], env.name),
        algo=dataclasses.replace(keys.convert(algo.keys, values["algo"], "algo."), name=algo.name),
        pretrain=filling.first_phase(tree, sharing_row, values["algo"], algo.cell),
        sharing={"name": sharing_row.name, **_sharing(sharing_row, values["sharing"], network)},
        network=network,
        logger=_logger(tree["logger"]),
    )
    checks.critic_sharing(config)
    checks.seeds(config)
    checks.divisions(config)
    if given is not None:
        checks.unused(config)
        checks.on_hosts(config)
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


def _folder(config):
    """A name for the run's folder, the same for the same run only."""
    text = json.dumps(config.decisive(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]", "_", config.env["name"])
    return f"{name}-{config.algo.name}-{config.sharing['name']}-seed{config.seed}-{digest}"
