"""The keys of a run itself, beside those of its environment, algorithm, sharing and network."""

from dataclasses import dataclass
from typing import Any

from lorasa_jax import hosts, keys
from lorasa_jax.config.presets import NAMES as PRESETS
from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.registry import NoKeys
from lorasa_jax.sharing import sequence
from lorasa_jax.values import EXACT, LARGEST_SEED, shown, whole_number

FORBIDDEN, LONGEST = "/\\#?%:", 128  # in names on Weights & Biases
SWITCH_RULES = ("threshold", "improving", "plateau")


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
    hosts: str | None = key(
        None, "NUMBER/COUNT@ADDRESS:PORT: this process is that one, from 0, of as many that are "
        "one run, the first at this address; auto: what Slurm's srun says; devices counts over all",
        check=hosts.written, accepts="0/2@10.0.0.1:1234 on the first of two hosts, or auto",
    )  # fmt: skip
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
