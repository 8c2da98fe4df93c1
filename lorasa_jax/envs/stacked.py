"""What all environments built on JaxMARL need: importing it quietly."""

import contextlib
import importlib
import importlib.util
import io

from lorasa_jax.errors import ConfigError


def upstream(module: str = "jaxmarl"):
    """Imports `jaxmarl` or one of its modules, which takes seconds the first time.

    It prints while it is imported, and puts back the interpreter's first stdout and stderr;
    neither reaches the caller.

    Raises:
      ConfigError: JaxMARL is not installed.
    """
    if importlib.util.find_spec("jaxmarl") is None:
        raise ConfigError("this environment needs the package jaxmarl, which is not installed.")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return importlib.import_module(module)
