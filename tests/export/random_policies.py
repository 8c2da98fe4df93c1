"""Policies whose parameters are all random, inputs for them, and what training makes of these."""

import jax
import numpy as np

from lorasa_jax import config as configuration
from lorasa_jax.learn.finished import Policy
from lorasa_jax.learn.team import forward
from lorasa_jax.policy.networks import parameters
from lorasa_jax.training import runs
from lorasa_jax.training.teams import build_teams


def random_policy(*overrides: str, phase: int = -1, seed: int = 0, banks=None) -> Policy:
    """A policy of that configuration, or of given banks, as if a run had just finished `phase`."""
    config = configuration.load([*overrides, "network.hidden=8", f"seed={seed}"])
    teams = build_teams(config, config.sharing.get("clusters"))
    role = teams[phase].actor

    def init(key):
        return role.scheme.init(key, lambda key: parameters(role.network, key, role.features))

    rng = np.random.default_rng(seed)
    banks = banks or jax.tree.map(
        lambda x: rng.normal(0.0, 0.5, x.shape).astype(np.float32),
        jax.eval_shape(init, jax.random.key(0)),
    )
    phase %= len(teams)
    return runs.policy_of(config, teams[phase], phase, banks, seed=seed, step=16, out="runs/none")


class Steps:
    """A few steps of three environments, two of which begin another episode on the way."""

    def __init__(self, policy: Policy, time: int = 4, envs: int = 3):
        rng = np.random.default_rng(1)
        env = policy.team.env
        shape = (time, envs, env.num_agents)
        self.obs = rng.normal(0.5, 2.0, (*shape, env.observation_size)).astype(np.float32)
        self.first = np.zeros((time, envs), bool)
        self.first[0, 1] = self.first[2, 0] = self.first[3, 1] = True
        width = getattr(env.action_space, "n", None) or env.action_space.size
        self.legal = rng.random((*shape, width)) < 0.6
        self.legal[..., -1] = True
        size = policy.team.actor.network.carry_size
        self.carry = rng.normal(size=(envs, env.num_agents, size)).astype(np.float32)

    def __len__(self):
        return len(self.obs)


def trained_forward(policy: Policy, steps: Steps) -> dict[str, np.ndarray]:
    """What training computes over all steps: outputs and action [time, ...], and the last carry."""
    team = policy.team

    @jax.jit
    def run(banks):
        weights = team.actor.scheme.weights(banks)
        carry, outputs = forward(
            team.actor.network, weights, steps.carry, steps.obs, steps.first, agent_axis=2
        )
        action = team.distribution.to_env(team.distribution.mode(outputs, steps.legal))
        return {"carry": carry, "action": action, **outputs}

    return jax.tree.map(np.asarray, run(policy.banks))


def assert_close(found: dict, wanted: dict, tolerance: float = 1e-5) -> None:
    assert set(found) == set(wanted)
    for name, x in wanted.items():
        assert np.shape(found[name]) == x.shape, name
        np.testing.assert_allclose(found[name], x, rtol=tolerance, atol=tolerance, err_msg=name)
