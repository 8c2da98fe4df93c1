"""Runs on disk, read back: configuration, teams, and state and policies at a checkpoint."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jax
import tensorstore
import yaml
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax import sharing
from lorasa_jax.config import Config
from lorasa_jax.envs.normalise import Observed
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.learn.team import Team
from lorasa_jax.sharing import clustering
from lorasa_jax.training import clusters, phases
from lorasa_jax.training.checkpoint import Checkpoints
from lorasa_jax.training.phases import Progress
from lorasa_jax.training.reporting import SUMMARY
from lorasa_jax.values import listed, whole_number

_SUMMARISED = ("env", "algo", "sharing", "seeds", "env_steps", "eval_return_per_seed", "parameters")
_REWRITE = "delete it and give the run's command again, which writes it anew."


@dataclass(frozen=True)
class Checkpoint:
    """A run at one of its checkpoints, all seeds together; env_steps are joint steps of one seed.

    `policy` is what was learned; training continues from `progress`.
    """

    out: str
    config: Config
    team: Team
    phase: int
    progress: Progress
    env_steps: int

    def policy(self, seed: int) -> Policy:
        """The policy of one of the run's seeds."""
        banks, statistics = self._of(seed, phases.finished(self.progress, self.team))
        return policy_of(
            self.config, self.team, self.phase, banks, seed=seed, step=self.env_steps,
            out=self.out, statistics=statistics, state=lambda: self.state(seed),
        )  # fmt: skip

    def state(self, seed: int) -> TrainState:
        """The whole training state of one of the run's seeds."""
        return self._of(seed, self.progress.state)

    def _of(self, seed, tree):
        row = self.config.seeds.index(seed)
        return jax.tree.map(lambda x: x[row], tree)


def policy_of(
    config: Config,
    team: Team,
    phase: int,
    banks: dict[str, Any],
    *,
    seed: int,
    step: int,
    out: str = "",
    statistics: Observed | None = None,
    state: Callable[[], TrainState] | None = None,
) -> Policy:
    """The policy that an actor's banks of one seed make of `team` in phase number `phase`."""
    return Policy(
        out=out, env_name=config.env["name"], algo=config.algo.name,
        sharing=config.sharing["name"], phase=config.phase_names[phase], seed=seed, step=step,
        team=team, weights=team.actor.scheme.weights(banks), statistics=statistics, config=config,
        banks=banks, state=state,
    )  # fmt: skip


def pretrained(config: Config) -> Checkpoint:
    """The checkpoint that `init_from` names, checked to fit what is to be fine-tuned.

    Raises:
      ConfigError: the run is of another environment, network, batch or number of seeds, or past
        its first phase.
    """
    assert config.init_from is not None  # or there is nothing to ask for
    path, _, step = config.init_from.rpartition("@")
    checkpoint = load(path, whole_number(step, "the step of init_from"))
    saved_config, new_config = checkpoint.config, config
    for what, one, other in (
        ("environment", saved_config.env, new_config.env),
        ("network", saved_config.network, new_config.network),
        ("num_envs", saved_config.algo.num_envs, new_config.algo.num_envs),
        ("rollout_length", saved_config.algo.rollout_length, new_config.algo.rollout_length),
        ("chunk_length", saved_config.algo.chunk_length, new_config.algo.chunk_length),
        ("number of seeds", saved_config.num_seeds, new_config.num_seeds),
        ("way of pretraining", _pretraining(saved_config), _pretraining(new_config)),
    ):
        if one != other:
            raise ConfigError(
                f"init_from={config.init_from} has another {what} ({one} there, {other} here); "
                "choose a run that matches."
            )
    groups = new_config.sharing.get("clusters")
    if groups is not None and clustering.renumbered(groups) != clusters.read(path):
        raise ConfigError(
            f"init_from={config.init_from} was pretrained with other clusters than "
            f"sharing.clusters={groups}; drop sharing.clusters."
        )
    if checkpoint.phase != 0:
        raise ConfigError(
            f"init_from={config.init_from} is a checkpoint after the switch; give a step before it."
        )
    first = phases.build_teams(config, clusters.read(path))[0].actor.scheme
    if dict(first.banks) != dict(checkpoint.team.actor.scheme.banks):
        raise ConfigError(
            f"init_from={config.init_from} was pretrained with other banks of parameters than "
            f"sharing={new_config.sharing['name']} begins with; choose a run that matches."
        )
    return checkpoint


def _pretraining(config):
    name = config.sharing["name"]
    return sharing.REGISTRY.row(name).phases[0].scheme or name, config.critic_sharing


def configured(out: str | Path) -> Config:
    """The configuration of the run in `out`, whether it has finished or not.

    Raises:
      ConfigError: there is no run, or its configuration cannot be used.
    """
    path = Path(out) / "config.yaml"
    if not path.exists():
        raise ConfigError(f"out={out} holds no run; give the folder that a run printed.")
    try:
        return configuration.resolve(cast(DictConfig, OmegaConf.load(path)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is damaged and cannot be read; run it again.") from error
    except ConfigError as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} was written by another version (it lacks {error}); use that one, or run again."
        ) from error


def summary(out: str | Path) -> dict:
    """The summary of the finished run in `out`, as `reporting.summarise` made it.

    Raises:
      ConfigError: there is no run, it has not finished, or the summary is damaged.
    """
    config, path = configured(out), Path(out) / SUMMARY
    if not path.exists():
        raise ConfigError(
            f"{out} is not finished (step {_reached(out, config):,} of {config.total_steps:,}); "
            "the command that began it continues it."
        )
    try:
        values = json.loads(path.read_text())
        missing = [key for key in _SUMMARISED if key not in values]
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged; {_REWRITE}") from error
    if missing or not isinstance(values, dict):
        raise ConfigError(f"{path} lacks {listed(missing) or 'everything'}; {_REWRITE}")
    return values


def _reached(out, config):
    """The step of the newest checkpoint, from where a run continues."""
    names = [path.name for path in (Path(out) / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0) * config.batch


def chosen_seed(out: str | Path, seeds: Sequence[int], seed: int | None, key: str = "seed") -> int:
    """The seed among those of `out` that is asked for under the name of `key`, else the only one.

    Raises:
      ConfigError: it is not one of them, or there are several and none is asked for.
    """
    names = listed(map(str, seeds))
    if seed is None and len(seeds) > 1:
        raise ConfigError(
            f"out={out} holds a policy for each of the seeds {names}; add {key}=SEED."
        )
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ConfigError(f"{key}={seed} is not a seed of this run; choose from {names}.")
    return seed


def require_adapters(policy: Policy) -> None:
    """Refuses a run's policy that has no adapters (yet).

    Raises:
      ConfigError: the way of sharing has no LoRA phase, or the switch was still to come.
    """
    config, out = policy.config, policy.out
    if sharing.sequence.adapting(policy.team.actor.scheme):
        return
    if policy.phase == config.phase_names[-1]:
        raise ConfigError(
            f"{out} has no LoRA phase (sharing={policy.sharing}); give a run of ps_lora or "
            "seps_lora."
        )
    raise ConfigError(
        f"{out} has no adapters yet at step {policy.step:,}; give a step after the switch, which "
        f"comes at {config.switches[0]:,} at the latest."
    )


def load(out: str | Path, env_steps: int | None = None) -> Checkpoint:
    """The run in `out` at its last checkpoint, or at the one of `env_steps`.

    Raises:
      ConfigError: there is no run, no such checkpoint, or it cannot be read.
    """
    folder_name, out = str(out), Path(out)
    config = configured(out)
    folder = out / "checkpoints"
    if not folder.is_dir():
        raise ConfigError(f"out={out} has no checkpoint yet; let the run go on first.")
    checkpoints = Checkpoints(folder, read_only=True)
    updates = checkpoints.all()
    if not updates:
        raise ConfigError(f"out={out} has no checkpoint yet; let the run go on first.")
    update = updates[-1] if env_steps is None else env_steps // config.batch
    if update not in updates or (env_steps or 0) % config.batch:
        steps = ", ".join(str(update * config.batch) for update in updates)
        raise ConfigError(
            f"out={out} has no checkpoint at step {env_steps}; those it has are at {steps}."
        )
    teams = phases.build_teams(config, clusters.read(out))
    try:
        phase = checkpoints.meta(update)["phase"]
        _read_through(folder / str(update) / "state")
        like = jax.eval_shape(functools.partial(phases.until, config, teams, phase))
        progress = checkpoints.restore(update, like, phases.LATER)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the checkpoint of update {update} in {folder} cannot be read by this version "
            f"({type(error).__name__}); run it again or give another step."
        ) from error
    return Checkpoint(folder_name, config, teams[phase], phase, progress, update * config.batch)


def _read_through(folder: Path) -> None:
    """Reads all of a checkpoint's parts one by one; damage raises OSError or ValueError here.

    Orbax reads them at once: where one fails, the others' threads print tracebacks afterwards.
    """
    json.loads((folder / "_METADATA").read_text())
    base = {"driver": "ocdbt", "base": folder.absolute().as_uri() + "/"}
    suffix = b"/.zarray"
    for key in tensorstore.KvStore.open(base).result().list().result():
        if key.endswith(suffix):
            path = key.removesuffix(suffix).decode() + "/"
            spec = {"driver": "zarr", "kvstore": {**base, "path": path}}
            tensorstore.open(spec, read=True).result().read().result()
