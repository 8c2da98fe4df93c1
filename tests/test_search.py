"""Searches over keys with Hydra's sweeper for Optuna."""

import math
import subprocess
import sys
import textwrap
from importlib.util import find_spec

import pytest

from lorasa_jax.errors import ConfigError
from lorasa_jax.training import multirun

SEARCH = [
    "env=specialisation_2", "sharing=ps", "total_steps=4000", "algo.num_envs=4",
    "algo.rollout_length=10", "algo.actor_lr=tag(log,interval(1e-5,1e-1))",
    "hydra/sweeper=optuna", "hydra.sweeper.n_trials=12",
]  # fmt: skip
# Two searches among runs whose return is best at 1e-3; nothing is trained.
PROGRAM = textwrap.dedent(
    f"""
    import math
    from lorasa_jax.training import execution, multirun

    def execute(config, **_):
        print("tried", config.algo.actor_lr)
        return {{"eval_return": -abs(math.log10(config.algo.actor_lr) + 3)}}

    execution.execute = execute
    for _ in range(2):
        assert multirun.batch({SEARCH}) == 0
    """
)


@pytest.mark.full
@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
def test_a_search_maximises_the_final_return_and_repeats_itself(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    tried = [float(line.split()[1]) for line in lines if line.startswith("tried")]
    assert len(set(tried)) == 12
    assert tried[12:] == tried[:12]
    best = [line for line in lines if line.startswith("best return")]
    rate = float(best[0].partition("algo.actor_lr=")[2])
    assert rate == min(tried, key=lambda rate: abs(math.log10(rate) + 3))


def test_what_does_not_go_with_a_search_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="hydra/sweeper=ax is not known"):
        multirun.batch(["env=specialisation_2", "hydra/sweeper=ax"])
    with pytest.raises(ConfigError, match=r"hydra/launcher=vmap|\[search\]"):
        multirun.batch([*SEARCH, "hydra/launcher=vmap"])
