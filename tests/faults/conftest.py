"""Runs of seconds that are damaged, killed and continued; `FAULTS_LONG=1` tries many more cases.

Every run here is trained in this process, by code that is compiled once for all tests.
"""

import contextlib
import shutil
from pathlib import Path

import jax
import pytest
from tiny_runs import STOPPED, leaves, rows, train

from lorasa_jax.training import plan, program


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)


_MADE, _PLANNED = {}, set()


@contextlib.contextmanager
def _compiling_once():
    """Compiles and checks a phase once for all runs of the same keys, and quickly."""
    compile_phase, check = program.compile_phase, plan.check

    def check_once(config, teams):
        key = str(config.decisive())
        if key not in _PLANNED:
            check(config, teams)
            _PLANNED.add(key)

    def once(config, index, team, progress, lanes=None):
        key = str(config.decisive()), index
        if config.sharing["name"] == "seps":  # whose groups are no keys
            return compile_phase(config, index, team, progress, lanes)
        if key not in _MADE:
            _MADE[key] = compile_phase(config, index, team, progress, lanes)
        return _MADE[key]

    option = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[option]
    jax.config.update(option, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "compile_phase", once)
        patch.setattr(plan, "check", check_once)
        try:
            yield
        finally:
            jax.config.update(option, before)


@pytest.fixture(scope="module")  # not longer: what follows in this process compiles as ever
def compiled_once():
    with _compiling_once():
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a run that nothing interrupted; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with _compiling_once():
        train(out)
    return out


@pytest.fixture(scope="session")
def end(finished):
    """(rows, arrays) of the uninterrupted run."""
    return rows(finished), leaves(finished)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory):
    """The folder of a run that stopped in the middle; not to be changed."""
    out = tmp_path_factory.mktemp("unfinished") / "run"
    with _compiling_once():
        assert train(out, stop_after=STOPPED) is None
    return out


@pytest.fixture
def copy(tmp_path):
    """copy(run): a copy to be damaged, in a folder of its own."""
    numbers = iter(range(10**6))
    return lambda run: Path(shutil.copytree(run, tmp_path / str(next(numbers)) / "run"))
