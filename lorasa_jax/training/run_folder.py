"""A run's folder: whose it is, claimed, locked, and its configuration kept when a run goes on."""

import contextlib
import dataclasses
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lorasa_jax import envs, hosts
from lorasa_jax.config import Config
from lorasa_jax.config.schema import decisive_part
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import refuse_link, write_atomically
from lorasa_jax.training import stored
from lorasa_jax.training.stored import CONFIG
from lorasa_jax.values import flat

# What a run opens in its folder, besides files that it replaces whole.
WRITTEN = (".lock", "checkpoints", "metrics.jsonl", "curve.png", "wandb")


def begun(out: Path, config: Config) -> Config | None:
    """The configuration to go on with, where `out` holds this very run already; writes nothing.

    It is `config`, but for the switch where the run becomes longer: it stays where it was, unless
    the command line says otherwise.

    Raises:
      ConfigError: it holds something else, or may not be continued.
    """
    from lorasa_jax.training.digests import PROVING

    if not _exists(out / CONFIG):
        # A start that was killed at once leaves these.
        leftovers = {".lock", f"{CONFIG}.part", ".config.part.yaml"}
        if out.exists() and any(
            child.name not in leftovers and not child.name.startswith(PROVING)
            for child in out.iterdir()
        ):
            raise ConfigError(f"out={out} holds files that are no run; choose another folder.")
        return None
    if not config.resume:
        raise ConfigError(
            f"out={out} already holds a run; choose another folder, or resume=true to continue it."
        )
    saved = _saved_config(out)
    config = _prolonged(out, config, saved)
    before, requested = flat(decisive_part(saved)), flat(config.decisive())
    differing = sorted(
        key for key in before.keys() | requested.keys() if before.get(key) != requested.get(key)
    )
    if config.total_steps > saved["total_steps"]:
        differing.remove("total_steps")
    # Discrete actions have no spread; the default of its key has changed.
    if "network.log_std" in differing and _discrete(config):
        differing.remove("network.log_std")
    # A run goes on with as many devices as there are now, if not in the same bits.
    if "devices" in differing:
        differing.remove("devices")
    if differing:
        changes = ", ".join(f"{key} ({before.get(key)} there)" for key in differing)
        raise ConfigError(f"out={out} holds a run with another {changes}; choose another folder.")
    return config


def _exists(path):
    """Whether a path leads to something; OSError becomes a sentence."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error


def _saved_config(out: Path) -> dict[str, Any]:
    """A run's configuration as its file has it, or its newest checkpoint where that is damaged."""
    from lorasa_jax.training import checkpoint

    try:
        saved = stored.config(out)
        assert saved is not None  # the file was there
        decisive_part(saved)
        int(saved["total_steps"])
        return saved
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        trained = checkpoint.newest_meta(out / "checkpoints").get("config")
        if trained is not None:
            print(f"warning: {out / CONFIG} is damaged; it is written anew from a checkpoint")
            return trained
        raise ConfigError(
            f"{out / CONFIG} is damaged and cannot be read, and no checkpoint holds what stood "
            "there; choose another folder."
        ) from error


def _prolonged(out, config, saved):
    """A configuration with more steps than the saved one, the switch left where it was.

    Raises:
      ConfigError: the steps that were trained depend on how many there are in all.
    """
    from lorasa_jax.training import clusters, measure_names, phases
    from lorasa_jax.training.teams import build_teams

    before = saved["total_steps"]
    if config.total_steps <= before:
        return config
    if phases.lr_scale(config) is not None:
        raise ConfigError(
            f"total_steps={config.total_steps} cannot prolong the run in {out}, which ends at "
            f"{before}: algo.lr_decay={config.algo.lr_decay} made its learning rates depend on "
            "that; choose another folder."
        )
    last = None if clusters.needed(config) else build_teams(config)[-1]
    if last is not None and measure_names.reports_more(last):
        raise ConfigError(
            f"total_steps={config.total_steps} cannot prolong the run in {out}, which ends at "
            f"{before}: what sharing={config.sharing['name']} did in its last phase may depend "
            "on that; choose another folder."
        )
    given = any(override.lstrip("+").startswith("switch_at=") for override in config.overrides)
    if given or config.switch_at is None or saved.get("switch_at") is None:
        return config
    switch_at = saved["switch_at"]
    switch_at = tuple(switch_at) if isinstance(switch_at, list) else switch_at
    return dataclasses.replace(config, switch_at=switch_at)


def _discrete(config: Config) -> bool:
    return isinstance(envs.make(**config.env).action_space, envs.Discrete)


def claim(out: Path, config: Config) -> None:
    """Makes a new run's directory, tries whether checkpoints can be read in it, and names the run.

    Raises:
      ConfigError: it cannot be written, or what is written there cannot be read.
    """
    from lorasa_jax.training import checkpoint

    for name in WRITTEN:
        refuse_link(out / name)
    if hosts.led((out / CONFIG).exists):
        return
    try:
        str(out.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"out={str(out)!a} is no text in UTF-8; choose another name.") from error
    try:
        hosts.led(lambda: out.mkdir(parents=True, exist_ok=True))
        checkpoint.prove(out)
        hosts.led(lambda: write_atomically(out / CONFIG, OmegaConf.to_yaml(config.to_dict())))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


def keep_config(out: Path, config: Config) -> None:
    """Brings the saved configuration up to date: damage mended, the run's length, its plugins."""
    hosts.led(lambda: _keep_config(out, config))


def _keep_config(out, config):
    try:
        saved = stored.config(out)
    except ConfigError:
        saved = None
    try:
        if saved is None or saved.get("total_steps") != config.total_steps:
            first_out = (saved or {}).get("out", config.out)  # an old run's id follows from it
            tree = {**config.to_dict(), "out": first_out}
            write_atomically(out / CONFIG, OmegaConf.to_yaml(tree))
            _retire_summary(out, config)
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error
    rename_plugins(out, config)


def _retire_summary(out, config):
    """Keeps the summary of a shorter run under the name of its steps."""
    with contextlib.suppress(ConfigError):
        summary = stored.summary(out)
        if summary is not None and summary["env_steps"] != config.total_steps:
            (out / stored.SUMMARY).replace(out / f"summary-{summary['env_steps']}.json")


def rename_plugins(out: Path, config: Config) -> None:
    """Replaces the saved plugins by those given now: their modules may have moved."""
    saved = stored.config(out) or {}
    if not config.plugins or saved.get("plugins") == list(config.plugins):
        return
    try:
        write_atomically(out / CONFIG, OmegaConf.to_yaml(saved | {"plugins": list(config.plugins)}))
    except OSError as error:
        raise ConfigError(f"out={out} cannot be written ({error.strerror}).") from error


@contextmanager
def locked(out: Path):
    """Holds the run directory; the lock falls with the process, however it ends."""
    with contextlib.ExitStack() as stack:
        hosts.led(lambda: _lock(out, stack))
        yield


def _lock(out, stack):
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(out / ".lock", flags, 0o666)
    except OSError as error:
        raise ConfigError(
            f"out={out} cannot be locked: {out / '.lock'} cannot be written ({error.strerror})."
        ) from error
    file = stack.enter_context(open(descriptor, "w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"out={out} is in use by another process; wait for it or choose another folder."
        ) from None
