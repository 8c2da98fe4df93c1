"""Searches over keys with Hydra's sweeper for Optuna."""

import math
from importlib.util import find_spec

import pytest

from lorasa_jax.errors import ConfigError
from lorasa_jax.training import execution, multirun

SEARCH = [
    "env=specialisation_2", "sharing=ps", "total_steps=4000", "algo.num_envs=4",
    "algo.rollout_length=10", "algo.actor_lr=tag(log,interval(1e-5,1e-1))",
    "hydra/sweeper=optuna", "hydra.sweeper.n_trials=12",
]  # fmt: skip


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """The learning rates of runs whose return is best at 1e-3; nothing is trained."""
    rates = []

    def execute(config, **_):
        rates.append(config.algo.actor_lr)
        return {"eval_return": -abs(math.log10(config.algo.actor_lr) + 3)}

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.chdir(tmp_path)
    return rates


@pytest.mark.skipif(find_spec("optuna") is None, reason="hydra-optuna-sweeper is not installed")
@pytest.mark.filterwarnings("ignore")  # of Optuna's own
def test_a_search_maximises_the_final_return_and_repeats_itself(tried, capsys):
    import optuna

    optuna.logging.disable_default_handler()  # it would keep the stream that capsys closes
    assert multirun.batch(SEARCH) == 0
    first = list(tried)
    assert len(set(first)) == 12
    out = capsys.readouterr().out
    assert "best return" in out
    best = float(out.split("algo.actor_lr=")[1].split()[0])
    assert best == min(first, key=lambda rate: abs(math.log10(rate) + 3))
    assert multirun.batch(SEARCH) == 0
    assert tried[12:] == first


def test_what_does_not_go_with_a_search_is_refused(tried):
    with pytest.raises(ConfigError, match="hydra/sweeper=ax is not known"):
        multirun.batch(["env=specialisation_2", "hydra/sweeper=ax"])
    with pytest.raises(ConfigError, match=r"hydra/launcher=vmap|\[search\]"):
        multirun.batch([*SEARCH, "hydra/launcher=vmap"])
    assert not tried
