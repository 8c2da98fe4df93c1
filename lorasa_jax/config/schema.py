"""What a run's configuration holds, as types, and which parts of it decide the results."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorasa_jax import envs, keys, sharing
from lorasa_jax.config.presets import NAMES as PRESETS
from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.learn import algorithms
from lorasa_jax.learn.ppo import Hyperparameters
from lorasa_jax.policy.networks import Network
from lorasa_jax.registry import NoKeys
from lorasa_jax.sharing import sequence
from lorasa_jax.sharing.lora import LoraKeys, LoraSpec, spec
from lorasa_jax.values import EXACT, LARGEST_SEED, shown, whole_number

FORBIDDEN, LONGEST = "/\\#?%:", 128  # in names on Weights & Biases
SWITCH_RULES = ("threshold", "improving", "plateau")
GROUPS = {registry.group: registry for registry in (
    envs.REGISTRY, algorithms.REGISTRY, sharing.REGISTRY,
)}  # fmt: skip


def _steps(value: Any, label: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{label}={shown(value)} must be a list of steps, such as [2000000].")
    return tuple(sorted({whole_number(steps, label) for steps in value}))


def _switch(value: Any, label: str) -> int | tuple[int, ...]:
    """One step, or several in their order."""
    if isinstance(value, list | tuple):
        return tuple(whole_number(steps, label) for steps in value)
    return whole_number(value, label)


def _modules(value: Any, label: str) -> tuple[str, ...]:
    return tuple(value)  # config.plugins has checked them


def _name(value: Any, label: str) -> str:
    """A name that Weights & Biases takes."""
    name = keys.text(value, label)
    if len(name) > LONGEST or set(name) & set(FORBIDDEN) or not name.isprintable():
        raise ConfigError(
            f"{label}={shown(name)} must be at most {LONGEST} characters without {FORBIDDEN} among "
            "them, which Weights & Biases does not take."
        )
    return name


@dataclass(frozen=True, kw_only=True)
class RunKeys:
    """The keys of the run itself. Steps are joint environment steps of one seed."""

    critic_sharing: str | None = key(
        None, "the critic's own way of sharing; null: what the actor's brings",
        choices=("ps", "nps", "ps_lora"),
    )  # fmt: skip
    preset: str = key(
        "paper", "where numbers come from that are not given: the paper's tables, the authors' "
        "code, or what is known to work on the task",
        choices=PRESETS,
    )  # fmt: skip
    total_steps: int = key(None, "steps of the whole run", least=1, most=EXACT, cell=True)
    switch_at: int | tuple[int, ...] | None = key(
        None, "the step at which the second phase begins, or a list of steps for more; null: the "
        "preset's share of the run",
        check=_switch, accepts="a whole number, or a list",
    )  # fmt: skip
    phases: tuple[str, ...] | None = key(
        None, "phases with their steps, such as [ps:2e6,ps_lora:1e6,ps:1e6,ps_lora]; the last runs "
        "to total_steps; merge before one takes adapters into the networks; null: those of the "
        "way of sharing",
        check=sequence.texts, accepts="a list of phases", later=True,
    )  # fmt: skip
    phase_optimisers: str = key(
        "fresh", "what a bank of the actor that trains in an earlier phase too finds again: fresh "
        "optimisers, or its own as it left them (kept), except after a merge",
        choices=("fresh", "kept"), later=True,
    )  # fmt: skip
    switch_when: str | None = key(
        None, "switch when this rule holds on evaluations, at switch_at at the latest",
        choices=SWITCH_RULES,
    )  # fmt: skip
    switch_threshold: float | None = key(
        None, "return that the rule threshold needs, and improving too where given"
    )
    switch_patience: int = key(3, "evaluations that improving and plateau look back", least=1)
    switch_margin: float = key(
        0.0, "share of |best return| that counts as better for plateau", least=0
    )
    init_from: str | None = key(
        None, "RUN@STEP: begin the second phase from another run's checkpoint"
    )
    seed: int = key(0, "the first seed", least=0, most=LARGEST_SEED)
    num_seeds: int = key(1, "seeds in one vmapped run: seed ... seed + num_seeds - 1", least=1)
    devices: int = key(
        1, "CPU cores or GPUs over which seeds are split, then environments", least=1, later=True
    )
    eval_every: int = key(50, "updates between evaluations", least=1)
    eval_episodes: int = key(None, "greedy episodes of an evaluation", least=1, cell=True)
    checkpoint_every: int = key(50, "updates between checkpoints", least=1)
    keep_at: tuple[int, ...] = key(
        (), "steps whose checkpoints are never deleted, such as starts of later fine-tuning",
        check=_steps, accepts="a list of steps",
    )  # fmt: skip
    updates_per_call: int = key(
        5, "updates a compiled call: how often the bar moves and signals are heard", least=1
    )
    progress_every: float = key(
        5.0, "seconds of silence after which a log gets a line of progress; 0: none", least=0,
        later=True,
    )  # fmt: skip
    compile_cache: str | None = key(
        "auto", "the folder of compiled programs, which later runs need not compile; auto: "
        "lorasa_jax in the user's cache folder; null: none. JAX_COMPILATION_CACHE_DIR wins over it",
        later=True,
    )  # fmt: skip
    plugins: tuple[str, ...] = key(
        (), "modules that register your own environments, ways of sharing and algorithms",
        check=_modules, accepts="a list of modules",
    )  # fmt: skip
    out: str | None = key(
        None, "the run's folder; null: runs/<env>-<algo>-<sharing>-seed<seed>-<hash>"
    )
    resume: bool = key(True, "continue an unfinished run in out")


@dataclass(frozen=True)
class WandbKeys:
    """Weights & Biases beside local files."""

    project: str = key("lorasa_jax", "the project", check=_name)
    entity: str | None = key(None, "the entity; null: your own", check=_name)
    group: str | None = key(None, "the group; null: the name of the run's folder", check=_name)


LOGGERS: dict[str, type] = {"local": NoKeys, "wandb": WandbKeys}

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
        words = map(_from_anywhere, self.overrides)
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
        """The algorithm's numbers in a phase; the first of several kinds has some of its own."""
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
# imported, and the preset, whose numbers stand in the keys themselves.
INDIFFERENT = (
    "out", "resume", "logger", "updates_per_call", "checkpoint_every", "keep_at", "plugins",
    "preset", "progress_every", "compile_cache",
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
