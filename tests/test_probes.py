"""Each ability alone, on games with known optima (lorasa_jax/envs/games.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import envs
from lorasa_jax.envs import games
from lorasa_jax.envs.types import Discrete
from lorasa_jax.learn import rollout, value_norm
from lorasa_jax.learn.team import critic_values
from lorasa_jax.sharing import REGISTRY
from lorasa_jax.training import clusters, phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

SMALL = [
    "algo.num_envs=32", "algo.rollout_length=20", "algo.chunk_length=10", "network.hidden=32",
    "algo.epochs=4", "algo.actor_lr=3e-3", "algo.critic_lr=3e-3", "eval_episodes=64",
]  # fmt: skip


def learn(*overrides, updates, switch=None):
    """Trains through all phases; returns the last one's team, progress and evaluation."""
    steps = [f"total_steps={updates * 640}"]
    if switch is not None:
        steps.append(f"switch_at={switch * 640}")
    config = configuration.load([*SMALL, *steps, *overrides])
    groups = clusters.find(config) if clusters.needed(config) else None
    teams = build_teams(config, groups)
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    done = 0
    for index, team in enumerate(teams):
        if index:
            progress = jax.jit(lambda p, i=index: phases.switch(config, teams, i, p))(progress)
        phase = compile_phase(config, index, team, progress)
        # The last quarter of the last phase is what `played` reports.
        first = (phase.end - done) * 3 // 4
        progress = phase.advance(progress, jnp.int32(first))
        progress = progress._replace(
            episodes=jax.tree.map(jnp.zeros_like, progress.episodes),
            sums=jax.tree.map(jnp.zeros_like, progress.sums),
        )
        progress = phase.advance(progress, jnp.int32(phase.end - done - first))
        done = phase.end
    results = phase.play(progress, jnp.int32(done))
    played = float(progress.episodes.returns[0] / progress.episodes.count[0])
    return team, progress, float(np.mean(results.returns)), played


def predicted_values(team, progress):
    """V of fresh episodes' first observations, in units of return, and those observations."""
    state = jax.tree.map(lambda x: x[0], progress.state)
    runner = rollout.start(jax.random.key(1), team, 64)
    _, values = critic_values(
        team, team.critic.scheme.weights(state.critic.banks), runner.critic_carry,
        runner.timestep.state, runner.first,
    )  # fmt: skip
    return value_norm.denormalise(state.value_norm, values)[:, 0], runner.timestep.obs[:, 0]


@pytest.mark.long
@pytest.mark.full
def test_constant_value():
    team, progress, _, _ = learn("env=probe_constant", "sharing=ps", updates=40)
    values, _ = predicted_values(team, progress)
    np.testing.assert_allclose(values, 1.0, atol=0.05)


@pytest.mark.full
def test_observation_dependent_value():
    team, progress, _, _ = learn("env=probe_observation", "sharing=ps", updates=60)
    values, obs = predicted_values(team, progress)
    np.testing.assert_allclose(values, obs[:, 0], atol=0.1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("game", "enough"),
    [("probe_action", 0.99), ("probe_action_continuous", 0.99), ("probe_memory", 0.99)],
)
def test_action_and_memory(game, enough):
    env = envs.make(game)
    _, _, score, _ = learn(f"env={game}", "sharing=ps", updates=80)
    print(f"{game}: {score:.3f}, random {env.random:.3f}, optimum {env.optimum:.3f}")
    assert score > enough


@pytest.mark.long
def test_shared_policy_without_ids_cannot_specialise():
    env = envs.make("specialisation_2")
    _, _, score, played = learn(
        "env=specialisation_2", "env.agent_ids=false", "sharing=ps", updates=60
    )
    print(f"ps: greedy {score:.3f}, sampled {played:.3f}, random {env.random:.3f}")
    assert score <= 0.75
    assert played <= 0.76  # a mean over about 480 sampled episodes


@pytest.mark.long
@pytest.mark.sample(1)
@pytest.mark.parametrize("sharing", ["ps_lora", "nps"])
def test_own_parameters_specialise_without_ids(sharing):
    env = envs.make("specialisation_2")
    switch = 20 if sharing == "ps_lora" else None
    _, _, score, played = learn(
        "env=specialisation_2", "env.agent_ids=false", f"sharing={sharing}", updates=80,
        switch=switch,
    )  # fmt: skip
    print(f"{sharing}: greedy {score:.3f}, sampled {played:.3f}, random {env.random:.3f}")
    assert score > 0.95


@pytest.mark.long
@pytest.mark.parametrize("sharing", ["ps", "ps_lora"])
def test_agreement(sharing):
    env = envs.make("synchronisation_4")
    switch = 30 if sharing == "ps_lora" else None
    _, _, score, played = learn(
        "env=synchronisation_4", f"sharing={sharing}", updates=60, switch=switch
    )
    print(f"{sharing}: greedy {score:.3f}, sampled {played:.3f}, random {env.random:.3f}")
    assert score > 0.95


def signs():
    """Every agent is shown a sign of its own and must name it; the reward is the share that do."""
    return games.Game(
        4, 2, Discrete(2), 4,
        begin=lambda key: jax.random.rademacher(key, (4,), float),
        observe=lambda memory, steps: jnp.stack([memory, -memory], axis=-1),
        play=lambda key, memory, steps, actions: (
            -memory, (actions == (memory > 0)).mean() / 4,
        ),
        optimum=1.0, random=0.5,
    )  # fmt: skip


ALGORITHMS = ("mappo", "a2po", "happo")
# Every scheme with one algorithm in turn; adapters with all.
PAIRS = {(name, ALGORITHMS[i % 3]) for i, name in enumerate(REGISTRY.names())}
PAIRS |= {("ps_lora", algo) for algo in ALGORITHMS}


@pytest.mark.long
@pytest.mark.parametrize(("sharing", "algo"), sorted(PAIRS))
def test_every_scheme_and_every_algorithm_learn(sharing, algo, monkeypatch):
    monkeypatch.setitem(games._GAMES, "signs", signs)
    given = ["sharing.clusters=[0,1,0,1]"] if REGISTRY.row(sharing).clustered else []
    _, _, score, played = learn(
        "env=signs", "network.kind=ff", f"sharing={sharing}", f"algo={algo}", *given,
        updates=24, switch=12 if len(REGISTRY.row(sharing).phases) == 2 else None,
    )  # fmt: skip
    print(f"{sharing}, {algo}: greedy {score:.3f}, sampled {played:.3f}")
    assert score > 0.95
