"""CONTRIBUTING's list of what to read of a training run: short, and each module met before it."""

import ast
import re
from pathlib import Path

TOP = Path(__file__).parents[1]
HEADING = "### A training run, from the command to the gradient"
MOST_MODULES, MOST_LINES = 20, 3000
# A reader who would follow the gradient cannot leave these out.
NEEDED = {
    "run.py", "config/resolve.py", "training/execution.py", "training/loop.py",
    "training/phases.py", "training/teams.py", "training/program.py", "learn/algorithms.py",
    "learn/mappo.py", "learn/ppo.py", "learn/rollout.py", "learn/returns.py", "learn/batch.py",
    "learn/losses.py", "learn/team.py", "sharing/scheme.py", "sharing/lora.py",
    "policy/networks.py", "policy/distributions.py",
}  # fmt: skip


def listed():
    """The list's modules, as paths below the package."""
    section = (TOP / "CONTRIBUTING.md").read_text().partition(HEADING)[2].partition("\n#")[0]
    items = re.findall(r"^(\d+)\. `([\w/]+\.py)`: \S", section, re.M)
    assert [int(number) for number, _ in items] == list(range(1, len(items) + 1))
    return [name for _, name in items]


def imported(path):
    """The files of the package that a file imports, inside functions too.

    A package stands for what its own `__init__.py` imports.
    """
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for place in (TOP / name.replace(".", "/") for name in names):
            files.add(place.with_suffix(".py"))
            package = place / "__init__.py"
            if package.is_file() and package.parent != TOP / "lorasa_jax" and package != path:
                files |= imported(package)
    return {file for file in files if file.is_file()}


def test_the_reading_list_has_what_is_needed_and_no_more_than_can_be_read():
    names = listed()
    paths = [TOP / "lorasa_jax" / name for name in names]
    assert all(path.is_file() for path in paths)
    assert len(set(names)) == len(names) <= MOST_MODULES
    assert set(names) >= NEEDED
    assert sum(len(path.read_text().splitlines()) for path in paths) <= MOST_LINES


def test_every_module_of_the_reading_list_is_imported_by_one_before_it():
    paths = [TOP / "lorasa_jax" / name for name in listed()]
    known = set()
    for place, path in enumerate(paths):
        assert place == 0 or path in known, f"{path} comes before all that import it"
        known |= imported(path)
