"""Every way of sharing under every algorithm: two updates, bit for bit the same each time."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lorasa_jax import sharing
from lorasa_jax.envs.games import Game
from lorasa_jax.envs.types import Box, Discrete
from lorasa_jax.learn import a2po, algorithms, rollout, team, value_norm
from lorasa_jax.learn.ppo import TrainState
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.distributions import Categorical, SquashedGaussian
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.sharing.spec import LoraSpec

UPDATES = {row.name: row.make for row in algorithms.REGISTRY.rows()}
NAMES = sharing.REGISTRY.names()
AGENTS, ENVS = 3, 4
# Compiling is what takes the time here.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
SPACES = {"discrete": Discrete(3), "continuous": Box(2)}
KINDS = ("gru", "ff")
FORMS = {
    "mappo": {},
    "a2po": {"loop": "epoch", "two_stage": True},
    "happo": {"trace": "none", "others": "free", "clip_schedule": "constant", "order": "random"},
}


def game(space):
    """Whoever acts is paid for the sum of what all do, less what the observation asks for."""
    return Game(
        AGENTS, 2, space, 4,
        begin=lambda key: jax.random.normal(key, (AGENTS, 2)),
        observe=lambda memory, steps: memory + steps.astype(float),
        play=lambda key, memory, steps, actions: (
            memory, -jnp.square(actions.sum().astype(float) - memory.sum()),
        ),
        optimum=0.0, random=0.0,
    )  # fmt: skip


def team_of(name, space, kind):
    """The team of a scheme's last phase, with agents 0 and 2 in one cluster."""
    env = game(SPACES[space])
    given = sharing.Given(AGENTS, LoraSpec(rank=2, targets=("*",)), (0, 1, 0))
    schemes = sharing.REGISTRY.row(name).make(given)
    distribution = Categorical(3) if space == "discrete" else SquashedGaussian(2)
    actor = RecurrentNetwork(distribution.heads, distribution.vectors, 8, kind)
    critic = RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, 8, kind)
    roles = [
        Role(network, scheme, optax.adam(1e-2), env.observation_size)
        for network, scheme in (
            (actor, schemes.actor_phases[-1]), (critic, schemes.critic_phases[-1]),
        )
    ]  # fmt: skip
    return Team(env, distribution, *roles)


@functools.cache
def started(name, space, kind):
    """A team and its state before the first update; algorithms share it."""
    team_ = team_of(name, space, kind)
    return team_, start(team_)


def start(team_):
    return jax.jit(lambda: begin(team_), compiler_options=QUICKLY)()


def begin(team_):
    def learner(role, key):
        fresh = lambda key: parameters(role.network, key, role.features)  # noqa: E731
        return team.start(role, role.scheme.init(key, fresh))

    key = jax.random.key(0)
    return TrainState(
        key, learner(team_.actor, key), learner(team_.critic, key), value_norm.init(AGENTS),
        rollout.start(key, team_, ENVS),
    )  # fmt: skip


def cases():
    """Every scheme with an algorithm in turn, three with all; spaces and networks take turns."""
    turns = list(itertools.product(SPACES, KINDS))
    for i, name in enumerate(NAMES):
        for j, algo in enumerate(UPDATES):
            if name in ("ps", "nps", "ps_lora") or j == i % len(UPDATES):
                yield name, algo, *turns[(i + j) % len(turns)]


@pytest.mark.sample(1)
@pytest.mark.parametrize("name, algo, space, kind", cases())
def test_two_updates(name, algo, space, kind):
    team_, first = started(name, space, kind)
    hp = a2po.A2po(
        num_envs=ENVS, rollout_length=4, chunk_length=2, epochs=2, clip=0.2, gamma=0.9,
        gae_lambda=0.8, entropy_coef=0.01, **{"loop": "agent", **FORMS[algo]})  # fmt: skip
    update = jax.jit(lambda state: UPDATES[algo](state, team_, hp)[:2], compiler_options=QUICKLY)
    ends = []
    for _ in range(2):
        state = first
        for _ in range(2):
            state, report = update(state)
        ends.append(jax.tree.map(np.asarray, (state.actor, state.critic, report)))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    for leaf in jax.tree.leaves(ends[0]):
        assert np.isfinite(leaf).all()
    for bank in team_.actor.scheme.banks:
        before, after = first.actor.banks[bank], ends[0][0].banks[bank]
        moved = [
            float(jnp.abs(a - b).max())
            for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)
        ]
        trained = bank in team_.actor.scheme.trained
        assert (max(moved) > 1e-3) if trained else (max(moved) == 0.0)


@pytest.mark.long
def test_clusters_of_one_and_of_all_update_as_ps_and_nps():
    """Gradients and all: the same update from the same parameters."""
    hp = a2po.A2po(
        num_envs=ENVS, rollout_length=4, chunk_length=2, epochs=2, clip=0.2, gamma=0.9,
        gae_lambda=0.8, entropy_coef=0.01, loop="agent")  # fmt: skip
    for clusters, name in (((0,) * AGENTS, "ps"), (tuple(range(AGENTS)), "nps")):
        ends = []
        for scheme in (sharing.grouped(clusters), getattr(sharing, name)(AGENTS)):
            base = team_of("ps", "continuous", "gru")
            team_ = base._replace(actor=base.actor._replace(scheme=scheme))
            state, _, _ = jax.jit(lambda s, t=team_: UPDATES["mappo"](s, t, hp))(start(team_))
            ends.append(state.actor)
        jax.tree.map(np.testing.assert_array_equal, *ends)
