"""The command line: `python -m lorasa_jax.run env=ant_4x2 [key=value ...]`."""

import dataclasses
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lorasa_jax import config as configuration
from lorasa_jax import terminal
from lorasa_jax.config import flags, overrides, plugins
from lorasa_jax.training.execution import execute

STOPPED = "stopped at once; the same command continues from the last checkpoint."


def main() -> None:
    """Exit code 0: finished, or stopped by a signal and saved; 1: had to stop; 2: refused."""
    with terminal.program("lorasa_jax", STOPPED):
        asked = flags.read(sys.argv[1:])
        if asked.help:
            from lorasa_jax.config import help as help_

            print(help_.text(), end="")
        elif asked.multirun:
            from lorasa_jax.training import multirun

            sys.exit(multirun.batch(asked.overrides))
        elif asked.own:
            plugins.load(plugins.named(asked.overrides))
            overrides.register()
            _hydra()
        else:
            config = configuration.load(asked.overrides, files=asked.files)
            if asked.cfg is None:
                execute(config)
            else:
                print(flags.part(config.to_dict(), asked.package), end="")


@hydra.main(config_path=None, config_name=overrides.PRIMARY, version_base="1.3")
def _hydra(raw: DictConfig) -> None:
    """Hydra's own entry point, for its other flags, such as --info or --cfg all."""
    arguments = tuple(HydraConfig.get().overrides.task)
    execute(dataclasses.replace(configuration.resolve(raw, arguments), overrides=arguments))


if __name__ == "__main__":
    main()
