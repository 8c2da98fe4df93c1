"""Typed configuration: Hydra's groups in, one frozen, checked, fully resolved Config out."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import checks, envs, paper
from lorasa_jax.errors import ConfigError
from lorasa_jax.policy import sharing as sharing_table
from lorasa_jax.policy.lora import LoraSpec
from lorasa_jax.values import close, listed, number, truth, typed, whole


@dataclass(frozen=True)
class Algo:
    """The numbers of all algorithms; see learn.ppo.Hyperparameters."""

    name: str
    num_envs: int
    rollout_length: int
    chunk_length: int
    epochs: int
    clip: float
    actor_lr: float
    critic_lr: float
    entropy_coef: float
    gamma: float
    gae_lambda: float
    max_grad_norm: float
    ratio: str
    truncation: str


@dataclass(frozen=True)
class Mappo(Algo):
    """What MAPPO adds; see learn/mappo.py."""

    minibatches: int


@dataclass(frozen=True)
class Sequential(Algo):
    """What agent-by-agent algorithms (a2po, happo) add; see learn/a2po.py."""

    loop: str
    order: str
    trace: str
    clip_schedule: str
    others: str
    others_clip: float
    refresh: str
    two_stage: bool


ALGOS = {"mappo": Mappo, "a2po": Sequential, "happo": Sequential}


@dataclass(frozen=True)
class Pretrain:
    """What the paper's tables set apart for the first of two phases (Tables 6 and 7)."""

    epochs: int
    clip: float
    actor_lr: float
    critic_lr: float
    entropy_coef: float


@dataclass(frozen=True)
class Network:
    hidden: int
    kind: str
    log_std: str
    depth: int
    layer_norm: bool


@dataclass(frozen=True)
class Config:
    """One run, everything decided. Steps are joint environment steps.

    switch_at is where the second phase begins, or with a rule (switch_when) begins at the latest.
    """

    env: dict[str, Any]
    algo: Algo
    pretrain: Pretrain | None
    sharing: dict[str, Any]
    critic_sharing: str | None
    network: Network
    logger: dict[str, Any]
    total_steps: int
    switch_at: int | None
    switch_when: str | None
    switch_threshold: float | None
    switch_patience: int
    switch_margin: float
    init_from: str | None
    seed: int
    num_seeds: int
    devices: int
    eval_every: int
    eval_episodes: int
    checkpoint_every: int
    keep_at: tuple[int, ...]
    updates_per_call: int
    out: str
    resume: bool
    notes: tuple[str, ...] = ()

    @property
    def batch(self) -> int:
        """Steps per update."""
        return self.algo.num_envs * self.algo.rollout_length

    @property
    def num_updates(self) -> int:
        return self.total_steps // self.batch

    @property
    def phase_ends(self) -> tuple[int, ...]:
        """The update at which each phase ends; the first one at the latest, if a rule decides."""
        switch = () if self.switch_at is None else (self.switch_at // self.batch,)
        return (*switch, self.num_updates)

    @property
    def phase_names(self) -> tuple[str, ...]:
        return ("pretrain", "finetune") if len(self.phase_ends) > 1 else ("train",)

    def algo_of(self, phase: int) -> Algo:
        """The algorithm's numbers in a phase; shared pretraining has some of its own."""
        if self.pretrain is None or phase % len(self.phase_ends):
            return self.algo
        return dataclasses.replace(self.algo, **dataclasses.asdict(self.pretrain))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))

    def lora_spec(self) -> LoraSpec | None:
        """What adapters look like, where the way of sharing has any."""
        sharing = self.sharing
        if "rank" not in sharing:
            return None
        return LoraSpec(
            sharing["rank"],
            sharing["alpha"],
            tuple(sharing["targets"]),
            tuple((sharing["rank_pattern"] or {}).items()),
            tuple((sharing["alpha_pattern"] or {}).items()),
            sharing["bias"],
            sharing["norms"],
        )

    def to_dict(self) -> dict[str, Any]:
        tree = dataclasses.asdict(self)
        del tree["notes"]
        tree["keep_at"] = list(self.keep_at)
        return tree

    def decisive(self) -> dict[str, Any]:
        """What determines the results; a run directory belongs to one such set of values."""
        tree = self.to_dict()
        return json.loads(json.dumps(decisive_part(tree)))


# Keys that came later, and what a run did before them: such runs still are what they were.
_LATER = {"devices": 1, "network.depth": 3, "network.layer_norm": True}

# Keys that change no result: where a run lies, who is told, how often it pauses.
_INDIFFERENT = ("out", "resume", "logger", "updates_per_call", "checkpoint_every", "keep_at")


def decisive_part(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that change no result, and later ones left as before."""
    kept = {key: value for key, value in tree.items() if key not in _INDIFFERENT}
    kept["network"] = dict(kept.get("network") or {})
    for name, before in _LATER.items():
        section, key = _place(kept, name)
        if section.get(key) == before:
            del section[key]
    return kept


def _place(tree, name):
    """The dictionary that holds a key of one or two parts, and the key there."""
    *section, key = name.split(".")
    return (tree[section[0]] if section else tree), key


GROUPS = {
    "env": envs.names,
    "algo": lambda: tuple(ALGOS),
    "sharing": lambda: tuple(sharing_table.TABLE),
    "logger": lambda: ("local", "wandb"),
}


def register(*more: str) -> None:
    """Makes every environment, `more`, and every own way of sharing a choice of Hydra's groups."""
    store = ConfigStore.instance()
    for name, row in sharing_table.registered().items():
        store.store(
            group="sharing", name=name, node={"defaults": [row.like, "_self_"], "name": name}
        )
    for name in (*envs.names(), *more):
        node = {"name": name, "agent_ids": True, "standardise": False, **envs.options(name)}
        store.store(group="env", name=name, node=node)


def load(overrides: list[str], *, batch: bool = False) -> Config:
    """The Config of `key=value` overrides, as on the command line; of a job of a batch, if so.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    overrides = [spelled(override) for override in overrides]
    register(*(o.partition("=")[2] for o in overrides if o.startswith("env=")))
    try:
        with initialize_config_module("lorasa_jax.conf", version_base="1.3"):
            raw = compose("config", overrides=overrides)
    except HydraException as error:
        raise ConfigError(sentence(error, overrides)) from error
    return resolve(raw, batch=batch)


def resolve(raw: DictConfig, *, batch: bool = False) -> Config:
    """Fills what is null from the paper's cell, converts every value, and checks the whole.

    batch: this is a job of several; `out` is where their folders are.
    """
    tree = OmegaConf.to_container(raw, resolve=True)
    notes: list[str] = []
    algo, sharing, network = tree["algo"], dict(tree["sharing"]), tree["network"]
    for name, before in _LATER.items():
        section, key = _place(tree, name)
        section.setdefault(key, before)
    checks.one_of(sharing["name"], "sharing", tuple(sharing_table.TABLE))
    like = sharing_table.TABLE[sharing["name"]].like or sharing["name"]
    cell = paper.cell(tree["env"]["name"], algo["name"], like)
    pretrain = _pretrain(tree, algo, sharing["name"])
    for section in (tree, algo, sharing, network):
        for key, value in section.items():
            if value is None and key in cell and key != "switch_at" and key != "alpha":
                section[key] = cell[key]
    for key in ("agent_ids", "standardise"):
        truth(tree["env"][key], f"env.{key}")
    network = typed(Network, network, "network.")
    checks.network(network)
    if "rank" in sharing:
        checks.adapters(sharing, network)
    if "grouping" in sharing:
        checks.clusters(sharing)
    threshold = tree["switch_threshold"]
    config = Config(
        env=tree["env"],
        algo=typed(ALGOS[algo["name"]], algo, "algo."),
        pretrain=pretrain,
        sharing=sharing,
        critic_sharing=checks.critic_sharing(tree["critic_sharing"], sharing["name"]),
        network=network,
        logger=tree["logger"],
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
    cell = paper.cell(tree["env"]["name"], algo["name"], first)
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
    raw = {field.name for field in dataclasses.fields(Config)} - {"notes"}
    raw |= {f"algo.{field.name}" for kind in ALGOS.values() for field in dataclasses.fields(kind)}
    raw |= {f"pretrain.{field.name}" for field in dataclasses.fields(Pretrain)}
    raw |= {f"network.{field.name}" for field in dataclasses.fields(Network)}
    raw |= {f"sharing.{key}" for key in (*checks.ADAPTER_KEYS, *checks.CLUSTER_KEYS)}
    raw |= {f"env.{key}" for name in GROUPS["env"]() for key in envs.options(name)}
    raw |= {"env.agent_ids", "env.standardise"}
    return sorted(raw)
