import jax
import numpy as np
import pytest
from scheme_parts import (
    AGENTS,
    begun,
    close,
    given,
    gradients,
    own_weights,
    random_banks,
    reached,
    refused,
    trained_by_name,
)

from lorasa_jax.sharing import REGISTRY, LoraSpec, ps
from lorasa_jax.sharing.shared_lora import shared_lora

SPEC = LoraSpec(rank=2, alpha=3.0, targets=("linear_*", "gru_*"), bias="lora")
SCHEME = shared_lora(AGENTS, SPEC)


def test_every_agent_has_the_backbone_and_the_one_adapter():
    banks = random_banks(SCHEME)
    assert {len(leaf) for leaf in jax.tree.leaves(banks)} == {1}
    net, adapters = (
        jax.tree.map(lambda x: np.asarray(x[0]), banks[n]) for n in ("net", "adapters")
    )
    for own in own_weights(SCHEME, banks):
        for layer, parts in net.items():
            wanted = dict(parts)
            if layer in adapters:
                adapter = adapters[layer]
                delta = 1.5 * adapter["a"] @ adapter["b"] if "a" in adapter else adapter["full"]
                wanted["kernel"] = parts["kernel"] + delta
                wanted["bias"] = parts["bias"] + adapter["bias"]
            close(own[layer], wanted)


def test_agents_are_rows_of_one_network():
    assert jax.tree.leaves(SCHEME.weights(begun(SCHEME))[1]) == []


def test_it_begins_as_the_network_that_it_takes_over():
    old = begun(ps(AGENTS))
    banks = SCHEME.adopt(jax.random.key(1), old)
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old))


def test_the_adapter_is_trained_and_the_network_frozen():
    assert SCHEME.trained == ("adapters",) and SCHEME.adapts and not SCHEME.independent
    assert reached(gradients(SCHEME, random_banks(SCHEME), 1)["adapters"])


def test_of_one_agent_it_is_ps_lora():
    one, own = (
        REGISTRY.row(name).make(given(1, spec=SPEC)).actor_phases[-1]
        for name in ("shared_lora", "ps_lora")
    )
    assert one.banks == own.banks
    banks = random_banks(one)
    close(own_weights(one, banks), own_weights(own, banks))
    close(one.adopt(jax.random.key(2), begun(ps(1))), own.adopt(jax.random.key(2), begun(ps(1))))


@pytest.mark.full
def test_a_run_of_it_has_the_phases_and_keys_of_ps_lora():
    teams = trained_by_name("shared_lora", "sharing.rank=2", "sharing.targets=[linear_1]")
    assert [set(team.actor.scheme.banks) for team in teams] == [{"net"}, {"net", "adapters"}]
    ours, theirs = REGISTRY.row("shared_lora"), REGISTRY.row("ps_lora")
    assert (ours.phases, ours.cell) == (theirs.phases, theirs.cell)
    assert issubclass(theirs.keys, ours.keys)  # who has which adapter (`by`) means nothing here


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.rank=0"], "sharing.rank=0 must be at least 1"),
        (["sharing.targets=[head]"], "no layer"),
        (["sharing.clusters=[0,1,0,1]"], "not a key of sharing=shared_lora"),
        (["critic_sharing=ps_lora"], "needs the two phases of sharing=ps_lora"),
    ],
)
def test_refused(words, told):
    assert told in refused("shared_lora", words)
