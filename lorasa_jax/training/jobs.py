"""The jobs of a batch: from one command's overrides to those of every job.

A batch over ways of sharing, algorithms or environments may give keys that some of its jobs have no
use for, such as the step of a switch where one of several ways of sharing has two phases. Such keys
are left out of these jobs, and said; jobs that become the same for it are run once.
"""

from collections.abc import Sequence

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins import basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode

from lorasa_jax import envs, keys
from lorasa_jax.config.overrides import DEFAULTS, PRIMARY
from lorasa_jax.config.schema import GROUPS, PRETRAIN

# What only runs of several phases have a use for.
OF_PHASES = (
    "switch_at", "switch_when", "switch_threshold", "switch_patience", "switch_margin",
    "init_from", "phases", "phase_optimisers", *(f"pretrain.{name}" for name in PRETRAIN),
)  # fmt: skip


def split(overrides: Sequence[str], config_loader) -> tuple[list[list[str]], list[str]]:
    """(the overrides of every job, what is to be said of them)."""
    own = [override for override in overrides if not _of_hydra(override)]
    parsed = OverridesParser.create(config_loader).parse_overrides(own)
    return fitting(basic_sweeper.BasicSweeper.split_arguments(parsed, None)[0])


def run(hydra, task, overrides: Sequence[str], jobs: list[list[str]]):
    """Runs task as Hydra's multirun does, on these jobs; returns its results by batches.

    overrides: the command's, of which Hydra's own choose the launcher.
    """
    own = [override for override in overrides if _of_hydra(override)]
    config = hydra.compose_config(PRIMARY, own, run_mode=RunMode.MULTIRUN)
    context = HydraContext(hydra.config_loader, Callbacks(config))
    size = config.hydra.sweeper.max_batch_size
    # Looked up now: Hydra, when it looks for plugins, makes the class anew.
    sweeper = basic_sweeper.BasicSweeper(size)
    sweeper.split_arguments = lambda *_: (  # pyright: ignore  # the jobs are known already
        [jobs] if size is None else list(sweeper.split_overrides_to_chunks(jobs, size))
    )
    sweeper.setup(config=config, hydra_context=context, task_function=task)
    return sweeper.sweep([])


def _of_hydra(override):
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


def fitting(jobs: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Jobs without the keys that others of them have a use for and they have not; and notes.

    A key that none of the jobs has a use for stays, to be refused.
    """
    useful = {key for job in jobs for key in map(_key, job) if not _useless(key, job)}
    kept: list[list[str]] = []
    left_out: dict[str, list[str]] = {}
    for job in jobs:
        idle = [o for o in job if _useless(_key(o), job) and _key(o) in useful]
        for override in idle:
            left_out.setdefault(_key(override), []).append(_sharing_of(job, _key(override)))
        rest = [override for override in job if override not in idle]
        if rest not in kept:
            kept.append(rest)
    return kept, [
        f"{key} means nothing to {', '.join(dict.fromkeys(choices))}; left out there"
        for key, choices in left_out.items()
    ]


def _key(override):
    return override.lstrip("+~").partition("=")[0]


def _chosen(job, group):
    """The row that a job chooses of a group."""
    choices = [o.partition("=")[2] for o in job if _key(o) == group]
    registry = GROUPS[group]
    name = choices[-1].strip("'\"") if choices else DEFAULTS[group]
    return registry.row(registry.canonical(name) or name)


def _useless(key, job):
    """Whether this job's rows give a key no meaning."""
    if key in OF_PHASES:
        return len(_chosen(job, "sharing").phases) < 2
    group, dot, name = key.partition(".")
    if not dot or group not in GROUPS:
        return False
    row = _chosen(job, group)
    return name not in keys.keys(envs.keys_of(row.name) if group == "env" else row.keys)


def _sharing_of(job, key):
    """`group=choice` that makes a key useless."""
    group = key.partition(".")[0] if key not in OF_PHASES else "sharing"
    return f"{group}={_chosen(job, group).name}"
