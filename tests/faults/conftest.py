"""Runs of seconds that are damaged, killed and continued; `FAULTS_LONG=1` tries many more cases.

Every run here is trained in this process, by code that is compiled once for all tests.
"""

import shutil
from pathlib import Path

import jax
import pytest
from tiny_runs import STOPPED, leaves, rows, train

from lorasa_jax.training import phases, plan


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def compiled_once():
    """Compiles and checks a phase once for all runs of the same keys, and quickly."""
    patch, made, compile_phase = pytest.MonkeyPatch(), {}, phases.compile_phase
    planned, check = set(), plan.check

    def check_once(config, teams):
        key = str(config.decisive())
        if key not in planned:
            check(config, teams)
            planned.add(key)

    def once(config, index, team, progress):
        key = str(config.decisive()), index
        if config.sharing["name"] == "seps":  # whose groups are no keys
            return compile_phase(config, index, team, progress)
        if key not in made:
            made[key] = compile_phase(config, index, team, progress)
        return made[key]

    patch.setattr(phases, "compile_phase", once)
    patch.setattr(plan, "check", check_once)
    hurried = {
        "jax_disable_most_optimizations": True, "jax_persistent_cache_min_compile_time_secs": 0,
    }  # fmt: skip
    before = {name: jax.config.values[name] for name in hurried}
    for name, value in hurried.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    patch.undo()


@pytest.fixture(scope="session")
def finished(tmp_path_factory, compiled_once):
    """The folder of a run that nothing interrupted; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    train(out)
    return out


@pytest.fixture(scope="session")
def end(finished):
    """(rows, arrays) of the uninterrupted run."""
    return rows(finished), leaves(finished)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory, compiled_once):
    """The folder of a run that stopped in the middle; not to be changed."""
    out = tmp_path_factory.mktemp("unfinished") / "run"
    assert train(out, stop_after=STOPPED) is None
    return out


@pytest.fixture
def copy(tmp_path):
    """copy(run): a copy to be damaged, in a folder of its own."""
    numbers = iter(range(10**6))
    return lambda run: Path(shutil.copytree(run, tmp_path / str(next(numbers)) / "run"))
