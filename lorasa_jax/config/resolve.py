"""Typed configuration: Hydra's groups in, one frozen, checked, fully resolved Config out."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import sharing as sharing_table
from lorasa_jax.config import checks, overrides, paper, plugins, presets
from lorasa_jax.config.schema import Config, Network, Pretrain, algo_names, algo_type, later, place
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import algorithms
from lorasa_jax.values import number, truth, typed, whole


def load(words: list[str], *, batch: bool = False) -> Config:
    """The Config of `key=value` words, as on the command line; of a job of a batch, if so.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    plugins.load(plugins.named(words))
    given = tuple(words)
    words = [overrides.spelled(word) for word in words]
    overrides.register(*(w.partition("=")[2] for w in words if w.startswith("env=")))
    try:
        with initialize_config_module("lorasa_jax.conf", version_base="1.3"):
            raw = compose("config", overrides=words)
    except HydraException as error:
        raise ConfigError(overrides.sentence(error, words)) from error
    return dataclasses.replace(resolve(raw, given, batch=batch), words=given)


def resolve(
    raw: DictConfig, words: tuple[str, ...] | None = None, *, batch: bool = False
) -> Config:
    """Fills what is null from preset and paper, converts every value, and checks the whole.

    words: those of the command line, whose keys win over the preset; None: this is a run's own
    configuration, in which all is decided. batch: this is a job of several; `out` is where their
    folders are.
    """
    tree = OmegaConf.to_container(raw, resolve=True)
    plugins.load(tree.setdefault("plugins", []))
    notes: list[str] = []
    algo, sharing, network = tree["algo"], dict(tree["sharing"]), tree["network"]
    for name, before in later(algo).items():
        section, key = place(tree, name)
        section.setdefault(key, before)
    checks.one_of(tree.setdefault("preset", "paper"), "preset", presets.NAMES)
    checks.one_of(sharing["name"], "sharing", tuple(sharing_table.TABLE))
    like = sharing_table.TABLE[sharing["name"]].like or sharing["name"]
    checks.one_of(algo["name"], "algo", algo_names())
    own_algo = algorithms.own_keys(algo["name"])
    for key, default in own_algo.items():
        algo.setdefault(key, default)  # a run from before the key
    cell = paper.cell(tree["env"]["name"], algorithms.model(algo["name"]), like)
    if words is not None:
        _preset(tree, cell, words, notes)
    pretrain = _pretrain(tree, algo, sharing["name"])
    own = sharing_table.TABLE[sharing["name"]].options
    for section in (tree, algo, sharing, network):
        for key, value in section.items():
            left = key in ("switch_at", "alpha", "others_clip") or (
                section is sharing and key in own
            )
            if value is None and key in cell and not left:
                section[key] = cell[key]
    checks.environment(tree["env"])
    algo["lr_decay"] = checks.lr_decay(algo["lr_decay"])
    network = typed(Network, network, "network.")
    checks.network(network)
    if "rank" in sharing:
        checks.adapters(sharing, network)
    if "grouping" in sharing:
        checks.clusters(sharing)
    threshold = tree["switch_threshold"]
    config = Config(
        env=tree["env"],
        algo=typed(algo_type(algo["name"]), algo, "algo.", free=own_algo),
        pretrain=pretrain,
        sharing=sharing,
        critic_sharing=checks.critic_sharing(tree["critic_sharing"], sharing["name"]),
        network=network,
        logger=tree["logger"],
        preset=tree["preset"],
        total_steps=whole(tree["total_steps"], "total_steps"),
        switch_at=None,
        switch_when=tree["switch_when"],
        switch_threshold=None if threshold is None else number(threshold, "switch_threshold"),
        switch_patience=whole(tree["switch_patience"], "switch_patience"),
        switch_margin=number(tree["switch_margin"], "switch_margin"),
        init_from=tree["init_from"],
        seed=whole(tree["seed"], "seed", least=0),
        num_seeds=whole(tree["num_seeds"], "num_seeds"),
        devices=whole(tree["devices"], "devices"),
        eval_every=whole(tree["eval_every"], "eval_every"),
        eval_episodes=whole(tree["eval_episodes"], "eval_episodes"),
        checkpoint_every=whole(tree["checkpoint_every"], "checkpoint_every"),
        keep_at=checks.kept(tree.get("keep_at") or []),
        updates_per_call=whole(tree["updates_per_call"], "updates_per_call"),
        plugins=tuple(tree["plugins"]),
        out="",
        resume=truth(tree["resume"], "resume"),
    )
    unknown = set(tree) - {f.name for f in dataclasses.fields(Config)}
    if unknown:
        raise ConfigError(f"unknown key {min(unknown)}; remove it.")
    checks.algorithm(config)
    checks.keeping(config)
    switch_at = checks.switch(config, tree["switch_at"], cell, notes)
    config = dataclasses.replace(config, switch_at=switch_at, notes=tuple(notes))
    out = tree["out"]
    if batch or not out:
        out = Path(out or "runs", _folder(config))
    return dataclasses.replace(config, out=str(out))


def _preset(tree, cell, words, notes):
    """Sets the preset's keys in place, but for those that are given on the command line."""
    env, algo = tree["env"]["name"], algorithms.model(tree["algo"]["name"])
    numbers = presets.numbers(tree["preset"], env, algo)
    given = {word.lstrip("+").partition("=")[0] for word in words}
    cell.update({key: numbers[key] for key in ("total_steps", "switch_at") if key in numbers})
    for name, value in numbers.items():
        section, key = place(tree, name)
        if name not in given and name not in ("total_steps", "switch_at"):
            section[key] = value
    for source in dict.fromkeys(row.source for row in presets.rows(tree["preset"], env, algo)):
        notes.append(f"preset={tree['preset']}: {source}")


def _pretrain(tree, algo, sharing):
    """The first phase's own numbers: as given, or given for the algorithm, or the paper's."""
    given = tree["pretrain"] or {}
    first = sharing_table.TABLE[sharing].pretraining
    if first is None:
        for key, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"pretrain.{key}={value} needs a second phase, which sharing={sharing} does "
                    "not have; drop it or choose ps_lora."
                )
        return None
    cell = paper.cell(tree["env"]["name"], algorithms.model(algo["name"]), first)
    filled = {
        key: next(x for x in (given.get(key), algo[key], cell[key]) if x is not None)
        for key in (field.name for field in dataclasses.fields(Pretrain))
    }
    return typed(Pretrain, filled, "pretrain.")


def _folder(config):
    """A name for the run's folder, the same for the same run only."""
    text = json.dumps(config.decisive(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]", "_", config.env["name"])
    return f"{name}-{config.algo.name}-{config.sharing['name']}-seed{config.seed}-{digest}"
