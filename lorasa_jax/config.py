"""Typed configuration: Hydra's groups in, one frozen, checked, fully resolved Config out."""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import envs, paper
from lorasa_jax.errors import ConfigError
from lorasa_jax.policy import sharing as sharing_table
from lorasa_jax.policy.networks import LAYERS
from lorasa_jax.values import close, listed, number, truth, typed, whole


@dataclass(frozen=True)
class Algo:
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
class Network:
    hidden: int
    log_std: str


@dataclass(frozen=True)
class Config:
    """One run, everything decided. Steps are joint environment steps."""

    env: dict[str, Any]
    algo: Algo
    sharing: dict[str, Any]
    network: Network
    logger: dict[str, Any]
    total_steps: int
    switch_at: int | None
    seed: int
    num_seeds: int
    eval_every: int
    eval_episodes: int
    checkpoint_every: int
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
        """The update at which each phase ends."""
        switch = () if self.switch_at is None else (self.switch_at // self.batch,)
        return (*switch, self.num_updates)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))

    def to_dict(self) -> dict[str, Any]:
        tree = dataclasses.asdict(self)
        del tree["notes"]
        return tree

    def decisive(self) -> dict[str, Any]:
        """What determines the results; a run directory belongs to one such set of values."""
        tree = self.to_dict()
        return json.loads(json.dumps(decisive_part(tree)))


# Keys that change no result: where a run lies, who is told, how often it pauses.
_INDIFFERENT = ("out", "resume", "logger", "updates_per_call", "checkpoint_every")


def decisive_part(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that change no result."""
    return {key: value for key, value in tree.items() if key not in _INDIFFERENT}


GROUPS = {
    "env": envs.names,
    "algo": lambda: ("mappo",),
    "sharing": lambda: tuple(sharing_table.TABLE),
    "logger": lambda: ("local", "wandb"),
}


def register() -> None:
    """Makes every registered environment a choice of Hydra's `env` group."""
    store = ConfigStore.instance()
    for name in envs.names():
        node = {"name": name, "agent_ids": True, "standardise": False, **envs.options(name)}
        store.store(group="env", name=name, node=node)


def load(overrides: list[str]) -> Config:
    """The Config of `key=value` overrides, as on the command line.

    Raises:
      ConfigError: with one sentence that names key, value and what is accepted.
    """
    register()
    for override in overrides:
        _check_choice(override)
    try:
        with initialize_config_module("lorasa_jax.conf", version_base="1.3"):
            raw = compose("config", overrides=overrides)
    except HydraException as error:
        raise ConfigError(_sentence(error, overrides)) from error
    return resolve(raw)


def resolve(raw: DictConfig) -> Config:
    """Fills what is null from the paper's cell, converts every value, and checks the whole."""
    tree = OmegaConf.to_container(raw, resolve=True)
    notes: list[str] = []
    algo, sharing, network = tree["algo"], dict(tree["sharing"]), tree["network"]
    cell = paper.cell(tree["env"]["name"], algo["name"], sharing["name"])
    for section in (tree, algo, sharing, network):
        for key, value in section.items():
            if value is None and key in cell and key != "switch_at" and key != "alpha":
                section[key] = cell[key]
    if "rank" in sharing:
        _sharing(sharing)
    for key in ("agent_ids", "standardise"):
        truth(tree["env"][key], f"env.{key}")
    config = Config(
        env=tree["env"],
        algo=typed(Algo, algo, "algo."),
        sharing=sharing,
        network=typed(Network, network, "network."),
        logger=tree["logger"],
        total_steps=whole(tree["total_steps"], "total_steps"),
        switch_at=None,
        seed=whole(tree["seed"], "seed", least=0),
        num_seeds=whole(tree["num_seeds"], "num_seeds"),
        eval_every=whole(tree["eval_every"], "eval_every"),
        eval_episodes=whole(tree["eval_episodes"], "eval_episodes"),
        checkpoint_every=whole(tree["checkpoint_every"], "checkpoint_every"),
        updates_per_call=whole(tree["updates_per_call"], "updates_per_call"),
        out="",
        resume=truth(tree["resume"], "resume"),
    )
    unknown = set(tree) - {f.name for f in dataclasses.fields(Config)}
    if unknown:
        raise ConfigError(f"unknown key {min(unknown)}; remove it.")
    _check(config)
    switch_at = _switch(config, tree["switch_at"], cell, notes)
    config = dataclasses.replace(config, switch_at=switch_at, notes=tuple(notes))
    return dataclasses.replace(config, out=str(tree["out"] or _default_out(config)))


def _default_out(config):
    text = json.dumps(config.decisive(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    name = re.sub(r"[^\w.-]", "_", config.env["name"])
    return f"runs/{name}-{config.algo.name}-{config.sharing['name']}-seed{config.seed}-{digest}"


def _switch(config, value, cell, notes):
    """The switch in steps; the paper's share of the run, on a whole update, if none is given."""
    phases = len(sharing_table.TABLE[config.sharing["name"]](3, None).actor_phases)
    if phases == 1:
        if value is not None:
            raise ConfigError(
                f"switch_at={value} needs a second phase, which sharing={config.sharing['name']} "
                "does not have; drop switch_at or choose ps_lora."
            )
        return None
    batch, total = config.batch, config.total_steps
    if value is None:
        share = cell["switch_at"] / cell["total_steps"]
        updates = min(max(round(share * config.num_updates), 1), config.num_updates - 1)
        if updates < 1:
            raise ConfigError(
                f"total_steps={total} is a single update of {batch} steps, too short for "
                f"pretraining and fine-tuning; give at least {2 * batch}."
            )
        if updates * batch != cell["switch_at"] or total != cell["total_steps"]:
            notes.append(
                f"switch_at={updates * batch:,}: the paper's share of the run "
                f"({share:.1%}), on a whole update"
            )
        return updates * batch
    steps = whole(value, "switch_at")
    if not batch <= steps < total:
        raise ConfigError(
            f"switch_at={steps} must lie between one update ({batch} steps) and the last one "
            f"before total_steps={total}."
        )
    if steps % batch:
        below = max(steps // batch, 1) * batch
        raise ConfigError(
            f"switch_at={steps} must be a multiple of the {batch} steps of one update, "
            f"such as {below}."
        )
    return steps


def _sharing(sharing):
    sharing["rank"] = whole(sharing["rank"], "sharing.rank")
    alpha = sharing["rank"] if sharing["alpha"] is None else sharing["alpha"]
    sharing["alpha"] = number(alpha, "sharing.alpha")
    if sharing["alpha"] <= 0:
        raise ConfigError(f"sharing.alpha={alpha} must be above 0.")
    targets = sharing["targets"]
    if not isinstance(targets, list) or not targets:
        raise ConfigError(
            f"sharing.targets={targets} must be a list of layers from {listed(LAYERS)}."
        )
    for target in targets:
        if target not in LAYERS:
            raise ConfigError(
                f"sharing.targets holds {target}, which is no layer; choose from {listed(LAYERS)}."
            )
    if len(set(targets)) < len(targets):
        raise ConfigError("sharing.targets names a layer twice; name each once.")


def _check(config):
    algo = config.algo
    for key, value, accepted in (
        ("algo.ratio", algo.ratio, ("per_dimension", "joint")),
        ("algo.truncation", algo.truncation, ("bootstrap", "authors")),
        ("network.log_std", config.network.log_std, ("linear", "vector")),
    ):
        if value not in accepted:
            raise ConfigError(f"{key}={value} is not known; choose one of {listed(accepted)}.")
    for key, value, low, high in (
        ("algo.clip", algo.clip, 0.0, None),
        ("algo.actor_lr", algo.actor_lr, 0.0, None),
        ("algo.critic_lr", algo.critic_lr, 0.0, None),
        ("algo.max_grad_norm", algo.max_grad_norm, 0.0, None),
        ("algo.gamma", algo.gamma, 0.0, 1.0),
    ):
        if value <= low or (high is not None and value > high):
            upper = "" if high is None else f" and at most {high:g}"
            raise ConfigError(f"{key}={value} must be above {low:g}{upper}.")
    if not 0.0 <= algo.gae_lambda <= 1.0:
        raise ConfigError(f"algo.gae_lambda={algo.gae_lambda} must lie between 0 and 1.")
    if algo.entropy_coef < 0.0:
        raise ConfigError(f"algo.entropy_coef={algo.entropy_coef} must be at least 0.")
    if algo.rollout_length % algo.chunk_length:
        raise ConfigError(
            f"algo.chunk_length={algo.chunk_length} must divide "
            f"algo.rollout_length={algo.rollout_length}."
        )
    if config.total_steps % config.batch:
        below = max(config.total_steps // config.batch, 1) * config.batch
        raise ConfigError(
            f"total_steps={config.total_steps} must be a multiple of the {config.batch} steps of "
            f"one update (num_envs x rollout_length), such as {below}."
        )


def _check_choice(override):
    """Refuses an unknown choice of a group before Hydra does, in our words."""
    group, _, choice = override.lstrip("+~").partition("=")
    if group in GROUPS:
        choice = choice.strip("'\"").replace("\\", "")
        if choice not in GROUPS[group]():
            raise ConfigError(
                f"{group}={choice} is not known; choose one of {listed(GROUPS[group]())}."
            )


def _sentence(error, overrides):
    """Hydra's complaint in one sentence."""
    text = " ".join(str(error).split())
    missing = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if missing:
        key = missing.group(1)
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
    raw = {"total_steps", "switch_at", "seed", "num_seeds", "eval_every", "eval_episodes"}
    raw |= {"checkpoint_every", "updates_per_call", "out", "resume", *GROUPS}
    raw |= {f"algo.{field.name}" for field in dataclasses.fields(Algo)}
    raw |= {f"network.{field.name}" for field in dataclasses.fields(Network)}
    raw |= {"sharing.rank", "sharing.alpha", "sharing.targets"}
    raw |= {f"env.{key}" for key in ("engine", "profile", "action_order", "agent_ids")}
    return sorted(raw)
