import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config
from lorasa_jax.analysis.observations import Observations
from lorasa_jax.learn import rollout, value_norm
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.learn.team import start
from lorasa_jax.policy.networks import parameters
from lorasa_jax.training.teams import build_teams

SMALL = [
    "env=specialisation_2", "network.hidden=8", "algo.num_envs=5", "algo.rollout_length=4",
    "algo.chunk_length=2", "algo.epochs=1", "total_steps=400", "eval_episodes=2",
]  # fmt: skip


@pytest.fixture(scope="session")
def configure():
    """The configuration of a small run, by default of PS on the game of specialisation."""
    return lambda *overrides, sharing="ps": config.load([*SMALL, f"sharing={sharing}", *overrides])


@pytest.fixture(scope="session")
def build(configure):
    """The last phase's team of a small run."""

    def build(*overrides, sharing="ps"):
        return build_teams(configure(*overrides, sharing=sharing))[-1]

    return build


@pytest.fixture(scope="session")
def randomise():
    """A tree of the same shapes with normal noise in place of values."""

    def randomise(tree, seed=0, scale=0.5):
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: jnp.float32(scale * rng.standard_normal(x.shape)), tree)

    return randomise


@pytest.fixture(scope="session")
def random_banks(randomise):
    """A role's banks, random in every parameter."""

    def random_banks(role, seed=0, scale=0.5):
        def init(key):
            return role.scheme.init(key, lambda key: parameters(role.network, key, role.features))

        return randomise(jax.eval_shape(init, jax.random.key(0)), seed, scale)

    return random_banks


@pytest.fixture(scope="session")
def random_state(random_banks):
    """A train state whose networks are random in every parameter, biases and norms included."""

    def random_state(team, hp, seed=0):
        key = jax.random.key(seed)
        return TrainState(
            key,
            start(team.actor, random_banks(team.actor, seed)),
            start(team.critic, random_banks(team.critic, seed + 1)),
            value_norm.init(team.env.num_agents),
            rollout.start(jax.random.fold_in(key, 1), team, hp.num_envs),
        )

    return random_state


@pytest.fixture(scope="session")
def constant_policies():
    """Banks of NPS whose agents' outputs are constants, given by bias {head: [agent, feature]}."""

    def constant_policies(banks, **biases):
        net = dict(banks["net"])
        for head, bias in biases.items():
            net[head] = {"kernel": jnp.zeros_like(net[head]["kernel"]), "bias": jnp.float32(bias)}
        return {"net": net}

    return constant_policies


@pytest.fixture(scope="session")
def observed():
    """Random observations of a team with ids, two episodes in every environment, all legal."""

    def observed(team, length=6, num_envs=3, seed=0):
        env = team.env
        rng = np.random.default_rng(seed)
        agents, ids = env.num_agents, np.eye(env.num_agents)
        features = env.observation_size - agents
        obs = rng.standard_normal((length, num_envs, agents, features))
        ids = np.broadcast_to(ids, (length, num_envs, agents, agents))
        first = np.zeros((length, num_envs), bool)
        first[0] = first[length // 2] = True
        width = team.distribution.heads[next(iter(team.distribution.heads))][0]
        return Observations(
            jnp.float32(np.concatenate([obs, ids], -1)),
            jnp.asarray(first),
            jnp.ones((length, num_envs, agents, width), bool),
            jnp.ones((length, num_envs, agents), bool),
        )

    return observed
