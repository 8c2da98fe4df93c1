"""Every cell of the paper's Tables 1-9, as configurations resolve them."""

from pathlib import Path

import pytest

from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError


def tables():
    """Number of the table -> {row: [numbers as text]}, from the fixture."""
    found, rows = {}, {}
    for line in (Path(__file__).parent / "paper_tables.txt").read_text().splitlines():
        if line.startswith("[table"):
            rows = found[int(line.split()[1].rstrip("]"))] = {}
        elif not line.startswith("#"):
            name, *numbers = line.split()
            rows[name] = numbers
    return found


TABLES = tables()
ENVS = tuple(TABLES[6])
SHARING = ("ps", "nps", "seps", "mtl", "ps_lora", "seps_lora")
# Which table has a cell's optimisation: A2PO, MAPPO; full sharing has one of its own under A2PO.
OPTIMISATION = {
    ("a2po", "ps"): 7, ("a2po", "ps_lora"): 8, ("a2po", "seps_lora"): 8,
    ("mappo", "ps_lora"): 9, ("mappo", "seps_lora"): 9,
}  # fmt: skip


def assert_optimisation(section, numbers):
    clip, epochs, actor, critic, entropy = map(float, numbers)
    assert (section.clip, section.epochs, section.entropy_coef) == (clip, epochs, entropy)
    assert (section.actor_lr, section.critic_lr) == (actor, critic)


def test_the_fixture_is_whole():
    assert len(ENVS) == 8
    for number in (1, 2, 4, 6, 7, 8, 9):
        assert tuple(TABLES[number]) == ENVS


@pytest.mark.sample(12)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("algo", ["mappo", "a2po"])
@pytest.mark.parametrize("env", ENVS)
def test_a_cell_is_the_papers(env, algo, sharing):
    overrides = [f"env={env}", f"algo={algo}", f"sharing={sharing}"]
    ranks = TABLES[1 if algo == "a2po" else 2][env]
    rank, switch = ranks[:2] if sharing == "ps_lora" else ranks[2:]
    if sharing == "seps_lora" and rank == "-":
        with pytest.raises(ConfigError, match="two agents cannot be clustered"):
            configuration.load(overrides)
        return
    config = configuration.load(overrides)
    algorithm = config.algo
    for key, (number,) in TABLES[3].items():
        section = config.network if key == "hidden" else algorithm
        assert getattr(section, key) == float(number)
    steps, episodes, threads, gae_lambda = map(float, TABLES[4][env])
    assert (config.batch, config.eval_episodes) == (steps, episodes)
    assert (algorithm.num_envs, algorithm.gae_lambda) == (threads, gae_lambda)
    assert config.total_steps == 12_000_000
    assert_optimisation(algorithm, TABLES[OPTIMISATION.get((algo, sharing), 6)][env])
    if not sharing.endswith("_lora"):
        assert config.switch_at is None and config.pretrain is None
        return
    assert config.sharing["rank"] == int(rank) and config.sharing["alpha"] == int(rank)
    # The nearest whole update: on the maps, 3,200 steps do not divide all of the paper's.
    assert abs(config.switch_at - float(switch)) <= config.batch / 2
    first = sharing.removesuffix("_lora")
    assert_optimisation(config.pretrain, TABLES[OPTIMISATION.get((algo, first), 6)][env])


def test_pretraining_follows_the_algorithm_where_that_was_said():
    config = configuration.load(["env=smac_MMM2", "algo.clip=0.3", "pretrain.epochs=2"])
    assert (config.algo.clip, config.pretrain.clip) == (0.3, 0.3)
    assert (config.algo.epochs, config.pretrain.epochs) == (5, 2)
    assert (config.algo.actor_lr, config.pretrain.actor_lr) == (3e-4, 5e-4)
    assert config.algo_of(0).clip == 0.3 and config.algo_of(-1) is config.algo


@pytest.mark.parametrize(
    "overrides, told",
    [
        (["sharing=ps", "pretrain.clip=0.1"], "pretrain.clip=0.1 needs a second phase"),
        (["pretrain.epochs=0"], "pretrain.epochs=0 must be at least 1"),
        (["pretrain.actor_lr=0"], "must be above 0"),
        (["pretrain.steps=3"], "unknown key pretrain.steps"),
    ],
)
def test_refused_in_one_sentence(overrides, told):
    with pytest.raises(ConfigError) as refusal:
        configuration.load(overrides)
    assert told in str(refusal.value)
