"""Modules of yours that register environments, ways of sharing, algorithms: `plugins=[mine]`.

A run's configuration and an export's card remember them, but a file's word is not enough to run
code: whoever reads a run (evaluation, export, report, `init_from`) names them again, as the command
that continues the run does.
"""

import importlib
import os
import sys
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lorasa_jax.errors import ConfigError
from lorasa_jax.values import listed, shown


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
    _check_names(modules)
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


def require(modules: Any) -> None:
    """Refuses a file's plugins that the reader has not named; imports nothing.

    Raises:
      ConfigError: says which, and how to name them.
    """
    _check_names(modules)
    # What is imported already, as in a notebook, has run.
    missing = [module for module in modules if module not in sys.modules]
    if missing:
        raise ConfigError(
            f"plugins={listed(missing)} would be imported, and so run, which a file may not ask "
            f"for: if you trust this code, name it yourself, plugins=[{','.join(modules)}]."
        )


def given(value: Any, label: str) -> tuple[str, ...]:
    """The modules of a program's own `plugins=[...]`, from text or a list; imports nothing."""
    modules = named([f"{label}={value}"]) if isinstance(value, str) else value
    _check_names(modules)
    return tuple(modules)


def _check_names(modules):
    if not isinstance(modules, list | tuple) or not all(
        isinstance(module, str) and all(part.isidentifier() for part in module.split("."))
        for module in modules
    ):
        raise _refused(modules)


def _refused(value):
    return ConfigError(
        f"plugins={shown(value)} must be a list of modules' names, such as plugins=[my_env]."
    )


def _failed(module, error):
    return ConfigError(
        f"plugins={module} cannot be imported ({type(error).__name__}: {error}); mend it first."
    )
