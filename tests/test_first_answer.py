"""What a command imports before it first says something."""

import subprocess
import sys

import pytest

# Each of them takes as long to import as all that a first line needs, or a good part of it.
SLOW = (
    "distrax", "tensorflow_probability", "orbax", "pandas", "sklearn", "scipy.stats", "matplotlib",
    "mujoco", "jaxmarl", "gymnasium", "brax", "wandb", "joblib", "submitit",
)  # fmt: skip

FIRST_LINE = """
import sys
from lorasa_jax import run
from rich.console import Console

def said(self, text, **_):
    print(text)
    print(*(name for name in SLOW if name in sys.modules))
    sys.exit()

Console.print = said
sys.argv = ["run", "env=ant_4x2", "out=OUT"]
run.main()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_first_help_needs_no_jax(arguments):
    code = (
        "import sys; from lorasa_jax.__main__ import main; "
        f"sys.argv = ['lorasa', *{arguments}]; main(); "
        "print([name for name in ('jax', 'numpy', 'hydra', 'rich') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.stdout.endswith("[]\n"), told.stdout + told.stderr


def test_a_run_says_what_it_trains_before_anything_slow_is_imported(tmp_path):
    code = f"SLOW = {SLOW}\n" + FIRST_LINE.replace("OUT", str(tmp_path / "run"))
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    headline, slow = told.stdout.splitlines()
    assert headline.startswith("ant_4x2 · mappo · ps_lora · seeds 0..0")
    assert slow == ""
