import jax
import numpy as np
import pytest
from scheme_parts import (
    AGENTS,
    begun,
    close,
    gradients,
    only_of,
    own_weights,
    random_banks,
    refused,
    trained_by_name,
)

from lorasa_jax.sharing import ps
from lorasa_jax.sharing.bias import bias

SCHEME = bias(AGENTS)


@pytest.mark.parametrize("kind", ["gru", "lstm", "ff"])
def test_every_bias_and_norm_has_its_agents_offset_and_kernels_none(kind):
    banks = random_banks(SCHEME, kind)
    net = jax.tree.map(lambda x: np.asarray(x[0]), banks["net"])
    for i, own in enumerate(own_weights(SCHEME, banks)):
        for layer, parts in net.items():
            offsets = banks["offsets"][layer]
            if not isinstance(parts, dict):
                close(own[layer], parts + offsets["offset"][i])
                continue
            for part, x in parts.items():
                close(own[layer][part], x if part == "kernel" else x + offsets[part][i])
    _, axes = SCHEME.weights(banks)
    with_own = {part for parts in axes.values() if isinstance(parts, dict) for part in parts
                if parts[part] == 0}  # fmt: skip
    assert with_own == ({"bias"} if kind == "ff" else {"bias", "scale"})


def test_it_begins_as_the_network_that_it_takes_over():
    old = begun(ps(AGENTS))
    banks = SCHEME.adopt(jax.random.key(1), old)
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(banks["offsets"]))
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old))


def test_an_agents_loss_reaches_its_offsets_alone():
    assert SCHEME.trained == ("offsets",) and SCHEME.adapts and SCHEME.independent
    banks = {**begun(SCHEME), "offsets": random_banks(SCHEME)["offsets"]}
    for agent in range(AGENTS):
        assert only_of(gradients(SCHEME, banks, agent)["offsets"], agent)


def test_of_equal_offsets_it_is_one_network():
    banks = random_banks(SCHEME)
    banks["offsets"] = jax.tree.map(lambda x: x.at[:].set(x[0]), banks["offsets"])
    first, *others = own_weights(SCHEME, banks)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)


@pytest.mark.sample(1)
@pytest.mark.parametrize("words", [(), ("network.layer_norm=false",), ("algo=a2po",)])
def test_a_run_of_it_has_two_phases(words):
    teams = trained_by_name("bias", *words)
    assert [set(team.actor.scheme.banks) for team in teams] == [{"net"}, {"net", "offsets"}]


def test_refused():
    assert "not a key of sharing=bias" in refused("bias", ["sharing.rank=8"])
    assert "needs the two phases" in refused("bias", ["critic_sharing=ps_lora"])
