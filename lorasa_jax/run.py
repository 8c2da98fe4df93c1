"""The command line: `python -m lorasa_jax.run env=ant_4x2 [key=value ...]`."""

import dataclasses
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lorasa_jax import config as configuration
from lorasa_jax.config import overrides, plugins
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training.execution import execute


def main() -> None:
    """Exit code 0: finished, or stopped by a signal and saved; 1: had to stop; 2: refused."""
    arguments = sys.argv[1:]
    settings = [argument for argument in arguments if not argument.startswith("-")]
    flags = [argument for argument in arguments if argument.startswith("-")]
    try:
        if {"--help", "-h"} & set(flags):
            from lorasa_jax.config import help as help_

            print(help_.text(), end="")
        elif not flags:
            execute(configuration.load(settings))
        elif {"--multirun", "-m"} & set(flags):
            from lorasa_jax.training import multirun

            multirun.check_flags(flags)
            sys.exit(multirun.batch(settings))
        elif "--cfg" in arguments and "job" in settings:
            settings.remove("job")
            print(OmegaConf.to_yaml(configuration.load(settings).to_dict()), end="")
        else:
            plugins.load(plugins.named(settings))
            overrides.register()
            _hydra()
    except ConfigError as error:
        _leave(error, 2)
    except TrainingError as error:
        _leave(error, 1)
    except KeyboardInterrupt:
        _leave("stopped at once; the same command continues from the last checkpoint.", 130)


@hydra.main(config_path=None, config_name=overrides.PRIMARY, version_base="1.3")
def _hydra(raw: DictConfig) -> None:
    """Hydra's own entry point, for its other flags, such as --info or --cfg all."""
    try:
        arguments = tuple(HydraConfig.get().overrides.task)
        execute(dataclasses.replace(configuration.resolve(raw, arguments), overrides=arguments))
    except ConfigError as error:
        _leave(error, 2)


def _leave(message, code):
    print(f"lorasa_jax: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
