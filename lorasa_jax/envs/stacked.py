"""What all environments built on JaxMARL need: importing it quietly."""

import contextlib
import importlib
import importlib.util
import io
import sys

from lorasa_jax.errors import ConfigError


def upstream(module: str = "jaxmarl"):
    """Imports `jaxmarl` or one of its modules, which takes seconds the first time.

    It prints while it is imported, and resets stdout and stderr to the interpreter's original ones,
    so all four are replaced meanwhile; neither effect reaches the caller.

    Raises:
      ConfigError: JaxMARL is not installed.
    """
    if importlib.util.find_spec("jaxmarl") is None:
        raise ConfigError("this environment needs the package jaxmarl, which is not installed.")
    with _quiet():
        return importlib.import_module(module)


@contextlib.contextmanager
def _quiet():
    names = ("stdout", "stderr", "__stdout__", "__stderr__")
    streams = {name: getattr(sys, name) for name in names}
    for name in names:
        setattr(sys, name, io.StringIO())
    try:
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
