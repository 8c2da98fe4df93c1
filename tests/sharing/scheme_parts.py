"""What tests of single schemes have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config, sharing
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn.team import forward
from lorasa_jax.policy.networks import RecurrentNetwork, parameters
from lorasa_jax.training import plan
from lorasa_jax.training.teams import build_teams

AGENTS, FEATURES, WIDTH = 3, 5, 8
NETWORKS = {
    "gru": RecurrentNetwork({"logits": (3, 0.01, 0.0)}, {}, WIDTH),
    "lstm": RecurrentNetwork({"mean": (2, 0.01, 0.0), "log_std": (2, 0.1, 0.0)}, {}, WIDTH, "lstm"),
    "ff": RecurrentNetwork({"mean": (2, 0.01, 0.0)}, {"log_std": (2, 1.0)}, WIDTH, "ff", 2, False),
}


def fresh(kind="gru"):
    return lambda key: parameters(NETWORKS[kind], key, FEATURES)


def begun(scheme, kind="gru"):
    """A scheme's first banks."""
    return jax.jit(lambda key: scheme.init(key, fresh(kind)))(jax.random.key(0))


def random_banks(scheme, kind="gru"):
    """Random banks of the shapes that a scheme's init gives."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: scheme.init(key, fresh(kind)), jax.random.key(0))
    return jax.tree.map(lambda x: jnp.float32(rng.standard_normal(x.shape)), shapes)


def own_weights(scheme, banks):
    """[agent]: every agent's weights, as NumPy arrays without an agent axis."""
    tree, axes = scheme.weights(banks)

    def of(i):
        leaf = lambda axis, x: np.asarray(x if axis is None else x[i])  # noqa: E731
        return jax.tree.map(leaf, axes, tree, is_leaf=lambda axis: axis is None)

    return [of(i) for i in range(len(next(iter(scheme.banks.values())).index))]


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, other)


def gradients(scheme, banks, agent, kind="gru"):
    """Gradients of one agent's loss to all banks, frozen ones too."""
    network = NETWORKS[kind]
    carry = jax.random.normal(jax.random.key(1), (2, AGENTS, network.carry_size))
    x = jax.random.normal(jax.random.key(2), (4, 2, AGENTS, FEATURES))
    first = jnp.zeros((4, 2), bool)

    def loss(banks):
        _, outputs = forward(network, scheme.weights(banks), carry, x, first, agent_axis=2)
        noise = jax.random.key(3)
        return sum(
            jnp.sum(out[:, :, agent] * jax.random.normal(noise, out[:, :, agent].shape))
            for out in outputs.values()
        )

    return jax.jit(jax.grad(loss))(banks)


def reached(tree):
    """Whether every leaf has a gradient that is not zero."""
    return all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))


def only_of(tree, agent):
    """Whether every leaf [agent, ...] has a gradient for one agent and none for the others."""
    return all(
        np.abs(leaf[agent]).max() > 0 and np.abs(np.delete(leaf, agent, axis=0)).max() == 0
        for leaf in map(np.asarray, jax.tree.leaves(tree))
    )


def trained_by_name(name, *words):
    """The teams of a way of sharing in a small run, which must pass the check before step 0."""
    settings = config.load(
        ["env=specialisation_4", f"sharing={name}", "algo.num_envs=2", "algo.rollout_length=4",
         "algo.chunk_length=2", "network.hidden=4", "total_steps=80", "eval_episodes=2", *words]
    )  # fmt: skip
    teams = build_teams(settings)
    plan.check(settings, teams)
    return teams


def refused(name, words):
    """The sentence by which keys of a way of sharing are refused."""
    with pytest.raises(ConfigError) as refusal:
        config.load(["env=specialisation_4", f"sharing={name}", *words])
    message = str(refusal.value)
    assert "\n" not in message and message[-1] in ".?"
    return message


def given(agents=AGENTS, **more):
    return sharing.Given(agents, **more)
