"""What every command line does besides its figure or measurement: errors and exit codes."""

import sys
from collections.abc import Callable

from experiments.training import Interrupted
from lorasa_jax.errors import ConfigError, TrainingError


def run(main: Callable[[list[str]], object]) -> None:
    """Exit code 0: done, or stopped by a signal and saved; 1: training had to stop; 2: refused."""
    try:
        main(sys.argv[1:])
    except Interrupted:
        print("stopped and saved; the same command continues.")
    except ConfigError as error:
        _leave(error, 2)
    except TrainingError as error:
        _leave(error, 1)


def _leave(error, code):
    print(f"{sys.argv[0].rpartition('/')[2].removesuffix('.py')}: {error}", file=sys.stderr)
    sys.exit(code)
