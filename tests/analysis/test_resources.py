import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.analysis import resources
from lorasa_jax.learn import mappo
from lorasa_jax.policy.distributions import Categorical
from lorasa_jax.policy.networks import RecurrentNetwork
from lorasa_jax.sharing import adapted, mtl, nps, ps
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.training.teams import build_teams

# Per environment of the authors' code: PS actor and critic, NPS actors, MTL actor, one agent's
# adapters at ranks 4, 8, 16 and 64.
ROBOTS = {
    "halfcheetah_2x3": (38936, 39463, 77872, 39134, 4071, 7947, 15107, 37635),
    "ant_4x2": (40586, 45799, 162344, 40982, 4110, 8090, 16050, 39234),
    "humanoid_9_8": (63686, 63157, 127372, 64280, 5653, 11297, 21993, 61641),
}
# The same for maps, whose sizes in the authors' code were: agents, observation, state, actions.
MAPS = {
    (8, 252, 299, 14): (55686, 57943, 445488, 62056, 5160, 10320, 20288, 53888),
    (10, 370, 435, 18): (63734, 66919, 637340, 74264, 5648, 11296, 22592, 61696),
}


def differences(a, b):
    return jax.tree.map(lambda a, b: np.asarray(a) != np.asarray(b), a, b)


def counts(agents, role, critic):
    def total(scheme):
        return resources.parameters_of(role._replace(scheme=scheme)).total

    def adapters(rank):
        scheme = adapted(ps(agents), LoraSpec(rank))
        return resources.parameters_of(role._replace(scheme=scheme)).entries["adapters"]

    return (
        total(ps(agents)), resources.parameters_of(critic._replace(scheme=ps(agents))).total,
        total(nps(agents)), total(mtl(agents)), *map(adapters, (4, 8, 16, 64)),
    )  # fmt: skip


@pytest.mark.parametrize("name", ROBOTS)
def test_robots_have_the_authors_numbers_of_parameters(name, configure):
    config = configure(f"env={name}", "network.hidden=64", "network.log_std=vector")
    team = build_teams(config)[0]
    assert counts(team.env.num_agents, team.actor, team.critic) == ROBOTS[name]


@pytest.mark.parametrize("sizes", MAPS)
def test_maps_have_the_authors_numbers_of_parameters(sizes, build):
    agents, observation, state, actions = sizes
    team, kind = build(), Categorical(actions)
    actor = team.actor._replace(
        features=observation, network=RecurrentNetwork(kind.heads, kind.vectors, 64)
    )
    critic = team.critic._replace(
        features=state, network=RecurrentNetwork({"value": (1, 1.0, 0.0)}, {}, 64)
    )
    assert counts(agents, actor, critic) == MAPS[sizes]


def test_adapters_are_trained_and_their_backbone_is_frozen(configure):
    config = configure(
        "env=ant_4x2", "network.hidden=64", "network.log_std=vector", "sharing.rank=8",
        "switch_at=200", sharing="ps_lora",
    )  # fmt: skip
    first, last = (resources.team_parameters(team) for team in build_teams(config))
    assert (first["actor"].trained, first["actor"].frozen) == (40586, 0)
    assert (last["actor"].trained, last["actor"].frozen) == (4 * 8090, 40586)
    assert last["actor"].total == 72946
    assert last["actor"].banks == {"net": 40586, "adapters": 4 * 8090}
    assert (last["critic"].trained, last["critic"].frozen) == (45799, 0)


@pytest.mark.full
def test_acting_and_updating_can_be_measured(configure, random_state):
    config = configure("network.kind=ff", sharing="nps")
    team, hp = build_teams(config)[0], config.algo_of(-1)
    state = random_state(team, hp)
    acting = resources.acting(team, team.actor.scheme.weights(state.actor.banks), 5)
    _, actions = acting.call()
    assert actions.shape == (5, 2)
    updating = resources.updating(state, team, hp, mappo.update)
    for new in (updating.call()[0], updating.call()[0]):  # the state given is not used up
        assert any(map(np.any, jax.tree.leaves(differences(new.actor.banks, state.actor.banks))))
    assert acting.bytes < updating.bytes
    assert min(acting.compile_seconds, updating.compile_seconds) > 0
    found = resources.median_seconds({"act": acting.call, "update": updating.call}, repeats=3)
    assert 0 < found["act"] < found["update"]


def test_a_programs_bytes_are_those_of_its_arrays():
    x = jnp.zeros((100, 100))
    assert resources.measured(lambda x: x + 1.0, x).bytes == pytest.approx(80000, abs=1000)
    assert resources.peak_bytes()["host"] > 10**7


def test_medians_are_taken_in_turns_after_a_first_call():
    order = []

    def record(name, pause):
        def call():
            order.append(name)
            time.sleep(pause)

        return call

    found = resources.median_seconds({"a": record("a", 0.0), "b": record("b", 0.02)}, repeats=3)
    assert order == ["a", "b"] * 4
    assert found["a"] < 0.02 <= found["b"]
