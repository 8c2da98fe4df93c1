"""Help, versions and the documentation's keys follow from the keys themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from lorasa_jax import __version__
from lorasa_jax.config import help as help_
from lorasa_jax.config.overrides import every_key

DOCS = Path(__file__).parent.parent / "docs" / "keys.md"


def told(*arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_every_key_is_explained():
    said = {x.name: x for _, keys in help_.sections() for x in keys}
    assert set(every_key()) - {"logger"} <= set(said) | {"logger"}
    assert all(x.help and x.accepts and x.default for x in said.values())


def test_the_documentation_of_keys_is_fresh():
    assert DOCS.read_text() == help_.markdown(), (
        "run `python -m lorasa_jax.config.help > docs/keys.md`"
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["lorasa_jax", "--help"], ("train", "evaluate", "export", "report", "figure")),
        (["lorasa_jax", "train", "--help"], ("algo.clip", "preset", "sharing.rank")),
        (["lorasa_jax.run", "--help"], ("algo.clip", "env.engine", "switch_at", "default")),
        (["lorasa_jax.evaluate", "--help"], ("episodes", "sampled", "render")),
        (["lorasa_jax.export", "--help"], ("format", "safetensors", "policy")),
        (["lorasa_jax.report", "--help"], ("RUN", "wandb", "policy")),
    ],
)
def test_programs_explain_their_keys(arguments, words):
    done = told(*arguments)
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout


def test_the_version_is_ours():
    assert told("lorasa_jax", "--version").stdout == f"lorasa_jax {__version__}\n"


def test_figures_say_where_they_are(tmp_path):
    done = subprocess.run(  # -E: where PYTHONPATH leads to a checkout there would be figures
        [sys.executable, "-E", "-m", "lorasa_jax", "figure", "2"], cwd=tmp_path,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and "start from a checkout" in done.stderr
