"""What a run's configuration holds, as types, and which parts of it decide the results."""

import dataclasses
import functools
import json
import shlex
from dataclasses import dataclass
from typing import Any

from lorasa_jax.learn import algorithms
from lorasa_jax.sharing.lora import LoraSpec


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
    minibatches: int
    target_kl: float | None
    lr_decay: str


@dataclass(frozen=True)
class Sequential(Algo):
    """What agent-by-agent algorithms (a2po, happo) add; see learn/a2po.py."""

    loop: str
    order: str
    trace: str
    clip_schedule: str
    others: str
    others_clip: float | None
    trace_others: str
    refresh: str
    two_stage: bool


ALGOS = {"mappo": Algo, "a2po": Sequential, "happo": Sequential}


def algo_names() -> tuple[str, ...]:
    """Every algorithm, registered ones too."""
    return (*ALGOS, *algorithms.registered())


def algo_type(name: str) -> type[Algo]:
    """What an algorithm's keys are; a registered one has its model's and its own."""
    own = algorithms.registered().get(name)
    if own is None:
        return ALGOS[name]
    return _extended(own.like, tuple((key, type(value)) for key, value in own.options.items()))


@functools.cache
def _extended(like, fields):
    model = ALGOS[like]
    return dataclasses.make_dataclass(model.__name__, fields, bases=(model,), frozen=True)


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
    std_min: float
    depth: int
    layer_norm: bool


@dataclass(frozen=True)
class Config:
    """One run, everything decided. Steps are joint environment steps.

    preset is where numbers came from that were not given, see presets.py.
    switch_at is where the second phase begins, or with a rule (switch_when) begins at the latest.
    notes are what was decided for the user; words are those of the command line.
    """

    env: dict[str, Any]
    algo: Algo
    pretrain: Pretrain | None
    sharing: dict[str, Any]
    critic_sharing: str | None
    network: Network
    logger: dict[str, Any]
    preset: str
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
    plugins: tuple[str, ...]
    out: str
    resume: bool
    notes: tuple[str, ...] = ()
    words: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def command(self) -> str:
        """The command line of this run, for a shell."""
        return shlex.join(["python", "-m", "lorasa_jax.run", *self.words])

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
        del tree["notes"], tree["words"]
        tree["keep_at"], tree["plugins"] = list(self.keep_at), list(self.plugins)
        return tree

    def decisive(self) -> dict[str, Any]:
        """What determines the results; a run directory belongs to one such set of values."""
        tree = self.to_dict()
        return json.loads(json.dumps(decisive_part(tree)))


# Keys that came later, and what a run did before them: such runs still are what they were.
LATER = {
    "devices": 1, "network.depth": 3, "network.layer_norm": True, "network.std_min": 0.0,
    "env.normalise": "none", "algo.target_kl": None, "algo.lr_decay": "none",
}  # fmt: skip
LATER_SEQUENTIAL = {"algo.minibatches": 1, "algo.trace_others": "all"}

# Keys that change no result: where a run lies, who is told, how often it pauses, what is imported
# first, what was to fill in the keys that are all there.
INDIFFERENT = (
    "out", "resume", "logger", "updates_per_call", "checkpoint_every", "keep_at", "plugins",
    "preset",
)  # fmt: skip


def later(algo: dict[str, Any]) -> dict[str, Any]:
    """The keys that came later and what a run with this section `algo` did before them."""
    return LATER | (LATER_SEQUENTIAL if "loop" in algo else {})


def decisive_part(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the keys that change no result, and later ones left as before."""
    kept = {key: value for key, value in tree.items() if key not in INDIFFERENT}
    for name in ("network", "env", "algo"):
        kept[name] = dict(kept.get(name) or {})
    for name, before in later(kept["algo"]).items():
        section, key = place(kept, name)
        if key in section and section[key] == before:
            del section[key]
    algo, first = kept["algo"], kept.get("pretrain") or {}
    if algo.get("others_clip", 0) is None and first.get("clip", algo["clip"]) == algo["clip"]:
        algo["others_clip"] = algo["clip"] / 2  # as runs said it that could not say `half of clip`
    return kept


def place(tree, name):
    """The dictionary that holds a key of one or two parts, and the key there."""
    *section, key = name.split(".")
    return (tree[section[0]] if section else tree), key
