"""A team of one agent under adapters: its weights have no agent axis, and all else goes on."""

import jax
import numpy as np
import pytest

from lorasa_jax import sharing
from lorasa_jax.envs import make
from lorasa_jax.export.source import agent_trees
from lorasa_jax.learn import a2po, mappo
from lorasa_jax.learn.a2po import A2po
from lorasa_jax.learn.finished import Policy
from lorasa_jax.sharing.spec import LoraSpec

HP = A2po(
    loop="agent",
    num_envs=4, rollout_length=4, chunk_length=2, epochs=2, clip=0.2, gamma=0.9, gae_lambda=0.8,
    entropy_coef=0.01,
)  # fmt: skip
SPEC = LoraSpec(rank=2, bias="all", norms=True)


@pytest.mark.full
@pytest.mark.parametrize("algo", [mappo, a2po], ids=["mappo", "a2po"])
@pytest.mark.parametrize("name", ["ps_lora", "seps_lora"])
def test_its_adapter_is_updated_and_exported(name, algo, make_team, make_state):
    given = sharing.Given(1, SPEC, clusters=(0,))
    schemes = sharing.REGISTRY.row(name).make(given)
    env = make("probe_action_continuous")
    team = make_team(env, schemes.actor_phases[-1], schemes.critic_phases[-1])
    state = make_state(team, HP.num_envs)
    after, report, _ = jax.jit(lambda state: algo.update(state, team, HP))(state)
    assert all(np.isfinite(value) for value in report.values())
    before, now = state.actor.banks, after.actor.banks
    jax.tree.map(np.testing.assert_array_equal, before["net"], now["net"])
    for layer, parts in now["adapters"].items():
        moved = [np.abs(x - before["adapters"][layer][part]).max() for part, x in parts.items()]
        assert max(moved) > 0, layer
    (tree,) = agent_trees(
        Policy("", "", "", "", "", 0, 0, team, team.actor.scheme.weights(now), banks=now)
    )
    alone = jax.tree.map(lambda x: x[0].shape, now["net"])
    assert jax.tree.map(np.shape, tree) == alone
