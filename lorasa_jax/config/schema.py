"""What a run's configuration holds, as types, and which parts of it decide the results."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasa_jax import envs, keys, sharing
from lorasa_jax.config.run_keys import RunKeys
from lorasa_jax.learn import algorithms
from lorasa_jax.learn.ppo import Hyperparameters
from lorasa_jax.policy.networks import Network
from lorasa_jax.sharing import sequence
from lorasa_jax.sharing.lora_keys import LoraKeys, spec
from lorasa_jax.sharing.spec import LoraSpec

GROUPS = {registry.group: registry for registry in (
    envs.REGISTRY, algorithms.REGISTRY, sharing.REGISTRY,
)}  # fmt: skip


# Keys that the paper's tables list separately for the first of several phases (Tables 6 and 7).
PRETRAIN = ("epochs", "clip", "actor_lr", "critic_lr", "entropy_coef")
Pretrain = dataclasses.make_dataclass(
    "Pretrain",
    [(n, f.type, f) for n, f in keys.keys(Hyperparameters).items() if n in PRETRAIN],
    namespace={"__module__": __name__},
    frozen=True,
)


@dataclass(frozen=True, kw_only=True)
class Config(RunKeys):
    """One run, everything decided.

    pretrain: numbers of the first phase, where there are more. out is never null here. notes
    are what was decided for the user; overrides are those of the command line.
    """

    out: str = ""
    env: dict[str, Any]
    algo: Hyperparameters
    pretrain: Any
    sharing: dict[str, Any]
    network: Network
    logger: dict[str, Any]
    notes: tuple[str, ...] = ()
    overrides: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def command(self) -> str:
        """The command line of this run, for a shell in any folder."""
        words = [_from_anywhere(x) for x in self.overrides if not x.startswith("hosts=")]
        return shlex.join(["python", "-m", "lorasa_jax.run", *words])

    @property
    def batch(self) -> int:
        """Steps per update."""
        return self.algo.num_envs * self.algo.rollout_length

    @property
    def num_updates(self) -> int:
        return self.total_steps // self.batch

    @property
    def switches(self) -> tuple[int, ...]:
        """The steps at which phases after the first begin, at the latest."""
        if self.switch_at is None:
            return ()
        return self.switch_at if isinstance(self.switch_at, tuple) else (self.switch_at,)

    @property
    def phase_ends(self) -> tuple[int, ...]:
        """The update at which each phase ends; at the latest, if a rule decides."""
        return (*(switch // self.batch for switch in self.switches), self.num_updates)

    @property
    def sequence(self) -> tuple[sequence.Entry, ...] | None:
        """The phases of `phases`, where such a list is given."""
        if self.phases is None:
            return None
        return sequence.entries(self.phases, sharing.REGISTRY.row(self.sharing["name"]))

    @property
    def phase_names(self) -> tuple[str, ...]:
        row = sharing.REGISTRY.row(self.sharing["name"])
        if self.sequence is not None:
            return sequence.names(self.sequence, row)
        return tuple(phase.name for phase in row.phases)

    def keeps_optimisers(self, phase: int) -> bool:
        """Whether the actor's banks find their optimisers' states again when a phase begins."""
        if self.sequence is None or self.sequence[phase].merged:
            return False
        return self.phase_optimisers == "kept"

    def algo_of(self, phase: int) -> Hyperparameters:
        """The algorithm's numbers in a phase, -1 the last; the first may have some of its own."""
        kind = phase if self.sequence is None else self.sequence[phase].kind
        if self.pretrain is None or kind != 0:
            return self.algo
        return self.algo.replace(**{name: getattr(self.pretrain, name) for name in PRETRAIN})

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_seeds))

    def lora_spec(self) -> LoraSpec | None:
        """What adapters look like, where the way of sharing has any."""
        if "rank" not in self.sharing:
            return None
        names = keys.keys(LoraKeys)
        return spec(LoraKeys(**{name: self.sharing[name] for name in names}))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as YAML has it."""
        algo = {"name": self.algo.name, **_values(self.algo)}
        run_values = {name: keys.plain(getattr(self, name)) for name in keys.keys(RunKeys)}
        return {
            "env": dict(self.env),
            "algo": algo,
            "pretrain": None if self.pretrain is None else _values(self.pretrain),
            "sharing": dict(self.sharing),
            "critic_sharing": run_values.pop("critic_sharing"),
            "network": _values(self.network),
            "logger": dict(self.logger),
            **run_values,
            "hosts": None,  # who computed is no part of what was
        }

    def decisive(self) -> dict[str, Any]:
        """What determines the results; a run directory belongs to one such set of values."""
        return json.loads(json.dumps(decisive_part(self.to_dict())))


def _from_anywhere(word):
    """An override that means the same in any folder: the run to begin from by its whole path."""
    name, _, text = word.partition("=")
    if name.lstrip("+") != "init_from" or text[:1] in ("", "'", '"', "/") or text == "null":
        return word
    return f"{name}={Path(text).absolute()}"


def _values(section):
    return {name: keys.plain(getattr(section, name)) for name in keys.keys(type(section))}


# Keys that change no result: the run's folder, its logger, how often it pauses or saves, what is
# imported, who computes, and the preset, whose numbers stand in the keys themselves.
INDIFFERENT = (
    "out", "resume", "logger", "updates_per_call", "checkpoint_every", "keep_at", "plugins",
    "preset", "progress_every", "compile_cache", "hosts",
)  # fmt: skip


def sections(tree: dict[str, Any]) -> dict[str, type]:
    """{section: its keys} of a configuration's sections; the run's own under "".

    Raises:
      ConfigError: the environment, algorithm or way of sharing is not known.
    """
    return {
        "": RunKeys,
        "env": envs.keys_of(tree["env"]["name"]),
        "algo": algorithms.REGISTRY.row(tree["algo"]["name"]).keys,
        "sharing": sharing.REGISTRY.row(tree["sharing"]["name"]).keys,
        "network": Network,
    }


def decisive_part(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration without keys that change no result, and without `later` ones at defaults."""
    decisive = {name: x for name, x in tree.items() if name not in INDIFFERENT}
    for section, kind in sections(tree).items():
        values = decisive if not section else dict(decisive.get(section) or {})
        for name, field in keys.keys(kind).items():
            later = field.metadata["key"].later
            is_later = later is True or later in values
            if is_later and name in values and values[name] == keys.plain(keys.default(field)):
                del values[name]
        if section:
            decisive[section] = values
    algo, pretrain = decisive["algo"], decisive.get("pretrain") or {}
    if algo.get("others_clip", 0) is None and pretrain.get("clip", algo["clip"]) == algo["clip"]:
        algo["others_clip"] = algo["clip"] / 2  # as older runs stored it, before null meant half
    return decisive


def place(tree, name):
    """The dictionary that holds a key of one or two parts, and the key there."""
    *section, last = name.split(".")
    return (tree[section[0]] if section else tree), last
