"""Compiled programs kept on disk by JAX's own persistent cache, so that they are compiled once.

What JAX's variables say comes first: JAX_COMPILATION_CACHE_DIR moves the cache,
JAX_ENABLE_COMPILATION_CACHE=false switches it off, JAX_COMPILATION_CACHE_MAX_SIZE bounds it.
"""

import hashlib
import os
import platform
import sys
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from lorasa_jax.errors import ConfigError

AUTO = "auto"
MOST = 4 * 2**30  # bytes; the program that was used longest ago goes first
_ours: list[str] = []  # the folder that `enable` has chosen, if any


def folder() -> Path:
    """Where programs for this kind of machine lie in the user's folder for caches.

    Code for a CPU that has more instructions than this one ends the process, and JAX's names of
    programs do not tell CPUs apart: the machines of a cluster, which share a home, do not share it.
    """
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "lorasa_jax" / f"{platform.machine()}-{_instructions()}"


def enable(place: str | None = AUTO) -> None:
    """Makes JAX keep compiled programs in `place`, unless its variables say where, or that not.

    place: a folder, `auto`, or None for no cache. Says so where the folder is new.

    Raises:
      ConfigError: the folder cannot be made.
    """
    current = jax.config.values["jax_compilation_cache_dir"]
    if not jax.config.values["jax_enable_compilation_cache"]:
        return
    if current is not None and current not in _ours:
        return  # the user's own
    if place is None:
        _use(None)
        return
    path = folder() if place == AUTO else Path(place).expanduser()
    new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if place == AUTO:  # whoever has no home trains without a cache
            return
        raise ConfigError(
            f"compile_cache={place} cannot be made ({error.strerror}); choose another folder, "
            "or null for none."
        ) from error
    _use(str(path))
    if new:
        print(
            f"compiled programs are kept in {path}, {MOST >> 30} GiB at most "
            "(compile_cache=FOLDER moves them, null keeps none)"
        )


def _use(path):
    if jax.config.values["jax_compilation_cache_dir"] == path:
        return
    jax.config.update("jax_compilation_cache_dir", path)
    _ours[:] = [] if path is None else [path]
    if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
        jax.config.update("jax_compilation_cache_max_size", MOST)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # A run has a hundred small programs, which together take as long as a large one.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # JAX decides at its first compilation whether it has one


def _instructions():
    """A word for what instructions this CPU has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = platform.processor()
    lines = text.splitlines() or [""]
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:8]
