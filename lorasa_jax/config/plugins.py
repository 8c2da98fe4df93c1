"""Modules of yours that register environments, ways of sharing, algorithms: `plugins=[mine]`.

They are named in a run's configuration, so that what reads the run (evaluation, export, report,
figures of `run=`) imports them by itself; the command that continues a run names them again.
"""

import importlib
import os
import sys

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lorasa_jax.errors import ConfigError


def named(arguments: list[str]) -> list[str]:
    """The modules that `plugins=[...]` among a command line's arguments names."""
    overrides = [argument.lstrip("+") for argument in arguments]
    assignments = [override for override in overrides if override.startswith("plugins=")]
    if not assignments:
        return []
    try:
        value = OverridesParser.create().parse_override(assignments[-1]).value()
    except HydraException:
        value = None
    if not isinstance(value, list):
        raise _refused(assignments[-1].partition("=")[2])
    return value


def load(modules: list[str]) -> None:
    """Imports the modules, from the current folder too; imported ones stay as they are.

    Raises:
      ConfigError: what is given is no list of names, or a module is not found or fails.
    """
    if not isinstance(modules, list) or not all(
        isinstance(module, str) and all(part.isidentifier() for part in module.split("."))
        for module in modules
    ):
        raise _refused(modules)
    working_directory = os.getcwd()
    # `python -m` puts the current folder on the path, an installed command does not.
    if modules and not {"", working_directory} & set(sys.path):
        sys.path.append(working_directory)
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise _failed(module, error) from error
            raise ConfigError(
                f"plugins={module} is not found; start from the folder that holds {module}, or "
                "install it."
            ) from error
        except Exception as error:
            raise _failed(module, error) from error


def _refused(value):
    return ConfigError(
        f"plugins={value} must be a list of modules' names, such as plugins=[my_env]."
    )


def _failed(module, error):
    return ConfigError(
        f"plugins={module} cannot be imported ({type(error).__name__}: {error}); mend it first."
    )
