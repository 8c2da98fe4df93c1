"""`lorasa` and `python -m lorasa_jax`: the programs under one name, `lorasa train env=ant_4x2`."""

import importlib
import importlib.util
import sys

from lorasa_jax import __version__

PROGRAMS = {
    "train": ("lorasa_jax.run", "train a team, or go on with a run"),
    "evaluate": ("lorasa_jax.evaluate", "play finished policies"),
    "export": ("lorasa_jax.export.command", "write policies for other programs"),
    "report": ("lorasa_jax.report.command", "a page of what runs came to"),
    "demo": ("lorasa_jax.demo", "watch a policy of this package: lorasa demo ant_4x2"),
    "figure": (None, "a figure or table of the paper: lorasa figure 2 KEY=VALUE ..."),
}
USAGE = "lorasa PROGRAM KEY=VALUE ...      also: python -m lorasa_jax PROGRAM ...\n"


def main() -> None:
    """Runs a program; without the name of one, arguments are those of `train`."""
    program, *arguments = sys.argv[1:] or ["--help"]
    if program in ("--help", "-h"):
        lines = "".join(f"  {name:<9} {what}\n" for name, (_, what) in PROGRAMS.items())
        print(f"{USAGE}\n{lines}\nlorasa PROGRAM --help explains its keys.")
        return
    if program == "--version":
        print(f"lorasa_jax {__version__}")
        return
    if program not in PROGRAMS:
        program, arguments = "train", sys.argv[1:]
    if program == "figure":
        _figure(arguments)
        return
    sys.argv = [f"lorasa {program}", *arguments]
    importlib.import_module(PROGRAMS[program][0]).main()


def _figure(arguments):
    """Runs a figure's command, which is in the repository beside its results, not installed."""
    name = arguments[0] if arguments else ""
    if "" not in sys.path:
        sys.path.insert(0, "")
    module = next(
        (f"experiments.{x}" for x in (f"figure_{name}", f"figures_{name}", f"tables_{name}", name)
         if name and importlib.util.find_spec("experiments") is not None
         and importlib.util.find_spec(f"experiments.{x}") is not None),
        None,
    )  # fmt: skip
    if module is None:
        print(
            "lorasa_jax: the commands of figures and tables are in the repository's folder "
            "experiments, not in the installed package; start from a checkout of it, and name one, "
            "such as `lorasa figure 2`.",
            file=sys.stderr,
        )
        sys.exit(2)
    from experiments import command

    sys.argv = [f"lorasa figure {name}", *arguments[1:]]
    command.run(importlib.import_module(module).main)


if __name__ == "__main__":
    main()
