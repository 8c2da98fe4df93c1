"""What it takes to add something: a file outside the package, or a key in a file or two of it.

CONTRIBUTING.md has the counts in a table; each row of it is done here.
"""

import contextlib
import re
import sys
import tokenize
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lorasa_jax import config, envs, run, sharing
from lorasa_jax.learn import algorithms
from lorasa_jax.training import plan, reporting
from lorasa_jax.training.reporter import Reporter
from lorasa_jax.training.teams import build_teams

TOP = Path(__file__).parents[1]
PLUGINS = TOP / "tests" / "plugins"
SMALL = [
    "network.kind=ff", "network.hidden=4", "network.depth=1", "algo.num_envs=2",
    "algo.rollout_length=4", "algo.chunk_length=2", "algo.epochs=1", "eval_episodes=1",
    "total_steps=32",
]  # fmt: skip
ADDED = {
    "an_environment": ["env=agreement", "sharing=ps"],
    "a_scheme_of_one_phase": ["env=specialisation_4", "sharing=every_other"],
    "a_scheme_of_three_phases": ["env=specialisation_4", "sharing=share_adapt_part"],
    "an_algorithm": ["env=specialisation_2", "sharing=ps", "algo=twice"],
    "a_hyperparameter": ["env=specialisation_2", "sharing=ps", "algo=narrow", "algo.narrow=3"],
}


@pytest.fixture(autouse=True)
def plugged(monkeypatch):
    """Plugins can be imported, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(PLUGINS)
    with contextlib.ExitStack() as forgotten:
        for registry in (envs.REGISTRY, sharing.REGISTRY, algorithms.REGISTRY):
            forgotten.enter_context(registry.temporary())
        yield
    for path in PLUGINS.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("name", ADDED)
def test_a_file_is_enough(name):
    settings = config.load([f"plugins=[{name}]", *ADDED[name], *SMALL])
    plan.check(settings, build_teams(settings))


@pytest.mark.full
@pytest.mark.parametrize("name", ADDED)
def test_what_is_added_trains(name, tmp_path):
    words = [f"plugins=[{name}]", *ADDED[name], *SMALL, f"out={tmp_path / 'run'}"]
    assert run.execute(config.load(words))["env_steps"] == 32


def test_phases_are_called_what_the_row_calls_them(tmp_path, capsys, monkeypatch):
    name = "a_scheme_of_three_phases"
    settings = config.load([f"plugins=[{name}]", *ADDED[name], *SMALL, f"out={tmp_path}"])
    reporter = Reporter(settings)
    for phase, team in zip(settings.phase_names, build_teams(settings), strict=True):
        reporter.switched(8, phase, team.actor.scheme.banks)
    assert capsys.readouterr().out.splitlines() == [
        "step 8: share begins, trains net",
        "step 8: adapt begins, trains adapters, net frozen",
        "step 8: part begins, trains net",
    ]
    ends = {"share": (0, 8), "adapt": (16,), "part": (24, 32)}
    rows = [
        {"phase": phase, "env_steps": step, "seed": 0, "eval_return": 0.0, "train_return": None}
        for phase, steps in ends.items()
        for step in steps
    ]
    assert reporting.phase_starts(rows, settings) == [(8, "adapt"), (16, "part")]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    reporting.draw_curve(rows, settings, tmp_path / "curve.png")
    assert [text.get_text().strip() for text in drawn[0].axes[0].texts] == ["adapt", "part"]


@pytest.mark.full
def test_a_measure_is_a_function_of_a_folder(tmp_path):
    from a_measure import spread

    for scheme, apart in (("ps", False), ("nps", True)):
        out = tmp_path / scheme
        run.execute(
            config.load(["env=specialisation_2", f"sharing={scheme}", *SMALL, f"out={out}"])
        )
        assert (spread(out) > 0) == apart


def naming(key):
    """The modules of the package whose code (not its strings or comments) has the name `key`."""

    def names(path):
        with path.open("rb") as file:
            return {t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.NAME}

    return sorted(p.name for p in (TOP / "lorasa_jax").rglob("*.py") if key in names(p))


def test_a_key_of_the_package_is_in_a_file_or_two():
    assert naming("trace_others") == ["a2po.py"]
    assert naming("lr_decay") == ["phases.py", "ppo.py"]
    assert naming("std_min") == ["distributions.py", "networks.py"]
    assert naming("layer_norm") == ["lora_keys.py", "networks.py"]


def test_the_table_of_what_to_touch_counts_right():
    text = (TOP / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\|.*\| (\d+) file.*\| (\d+) \| `tests/plugins/(\w+)\.py` \|$", text, re.M)
    assert {name for *_, name in rows} == {path.stem for path in PLUGINS.glob("*.py")}
    for files, lines, name in rows:
        written = (PLUGINS / f"{name}.py").read_text().splitlines()
        assert (int(files), int(lines)) == (1, sum(bool(line.strip()) for line in written)), name
