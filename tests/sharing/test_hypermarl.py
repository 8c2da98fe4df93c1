import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scheme_parts import (
    AGENTS,
    begun,
    close,
    given,
    gradients,
    only_of,
    own_weights,
    random_banks,
    reached,
    refused,
    trained_by_name,
)

from lorasa_jax.sharing import REGISTRY, nps, ps
from lorasa_jax.sharing.hypermarl import HyperKeys, hypermarl

KEYS = {
    "mlp": HyperKeys(hypernet="mlp", embedding=4, hypernet_width=6),
    "linear": HyperKeys(hypernet="linear", embedding=4),
}
SCHEMES = {name: hypermarl(AGENTS, keys) for name, keys in KEYS.items()}


def generated(maps, vector):
    """One part of a layer, entry by entry."""
    hidden = np.asarray(vector)
    if "in" in maps:
        weights, bias = np.asarray(maps["in"][0]), np.asarray(maps["in_bias"][0])
        hidden = np.array(
            [
                max(0.0, sum(vector[e] * weights[e, h] for e in range(len(vector))) + bias[h])
                for h in range(len(bias))
            ]
        )
    total = np.asarray(maps["base"][0], float)
    for h, out in zip(hidden, np.asarray(maps["out"][0]), strict=True):
        total = total + h * out
    return total


@pytest.mark.parametrize("kind", ["gru", "ff"])
@pytest.mark.parametrize("hypernet", SCHEMES)
def test_layers_are_made_of_the_agents_embedding(hypernet, kind):
    scheme = SCHEMES[hypernet]
    banks = random_banks(scheme, kind)
    for own, vector in zip(
        own_weights(scheme, banks), np.asarray(banks["embedding"]["vector"]), strict=True
    ):
        wanted = jax.tree.map(lambda x: np.asarray(x[0]), banks["shared"])
        for layer, parts in banks["hypernet"].items():
            wanted[layer] = {part: generated(maps, vector) for part, maps in parts.items()}
        close(own, wanted)


def test_recurrent_layers_are_shared_unless_they_are_named():
    banks = random_banks(SCHEMES["mlp"])
    assert set(banks["hypernet"]) == {"linear_1", "linear_2", "linear_3", "linear_6", "linear_7"}
    _, axes = SCHEMES["mlp"].weights(banks)
    assert axes["gru_h_5"]["kernel"] is None and axes["linear_6"]["kernel"] == 0
    everything = hypermarl(AGENTS, HyperKeys(layers=["*"], embedding=2, hypernet_width=3))
    assert "gru_h_5" in random_banks(everything)["hypernet"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("hypernet", SCHEMES)
def test_agents_begin_apart_with_weights_of_about_the_usual_size(hypernet):
    scheme = SCHEMES[hypernet]
    banks = begun(scheme)
    for kernel in np.asarray(banks["hypernet"]["linear_2"]["kernel"]["out"][0]):
        close(kernel.T @ kernel, 2 * np.eye(8))
    vectors = banks["embedding"]["vector"]
    gain = {"mlp": 2.0, "linear": 1.0}[hypernet]
    close(vectors @ vectors.T, gain * np.eye(AGENTS))
    first, second, _ = own_weights(scheme, banks)
    assert np.abs(first["linear_2"]["kernel"] - second["linear_2"]["kernel"]).max() > 0.1
    close(first["linear_2"]["bias"], np.zeros(8))
    usual = np.linalg.norm(begun(ps(AGENTS))["net"]["linear_2"]["kernel"][0])
    sizes = [np.linalg.norm(own["linear_2"]["kernel"]) for own in own_weights(scheme, banks)]
    assert usual / 3 < np.mean(sizes) < 3 * usual


@pytest.mark.sample(1)
@pytest.mark.parametrize("hypernet", SCHEMES)
def test_a_network_taken_over_stays_as_it_was(hypernet):
    old = begun(ps(AGENTS))
    banks = SCHEMES[hypernet].adopt(jax.random.key(1), old)
    close(own_weights(SCHEMES[hypernet], banks), own_weights(ps(AGENTS), old))
    assert reached(gradients(SCHEMES[hypernet], banks, 0)["hypernet"]["linear_2"]["kernel"]["out"])


@pytest.mark.parametrize("hypernet", SCHEMES)
def test_with_one_embedding_it_is_full_sharing(hypernet):
    """The same weights for all, and the same gradients in sum, whoever acts."""
    scheme = SCHEMES[hypernet]
    banks = random_banks(scheme)
    banks["embedding"] = {"vector": jnp.stack([banks["embedding"]["vector"][0]] * AGENTS)}
    first, *others = own_weights(scheme, banks)
    for other in others:
        close(other, first)
    alone = hypermarl(1, KEYS[hypernet])
    tree, axes = alone.weights({**banks, "embedding": {"vector": banks["embedding"]["vector"][:1]}})
    assert jax.tree.leaves(axes) == []
    close(tree, first)


def test_with_one_hot_embeddings_the_linear_one_is_a_network_each():
    scheme = hypermarl(AGENTS, HyperKeys(hypernet="linear", embedding=AGENTS, layers=["*"]))
    banks = random_banks(scheme)
    banks["embedding"] = {"vector": jnp.eye(AGENTS)}
    banks["hypernet"] = {
        layer: {part: {**maps, "base": 0 * maps["base"]} for part, maps in parts.items()}
        for layer, parts in banks["hypernet"].items()
    }
    nets = jax.tree.map(lambda x: jnp.concatenate([x] * AGENTS), banks["shared"])
    for layer, parts in banks["hypernet"].items():
        nets[layer] = {part: maps["out"][0] for part, maps in parts.items()}
    close(own_weights(scheme, banks), own_weights(nps(AGENTS), {"net": nets}))


@pytest.mark.sample(1)
@pytest.mark.parametrize("hypernet", SCHEMES)
def test_an_agents_loss_reaches_the_hypernetwork_and_its_own_embedding(hypernet):
    scheme = SCHEMES[hypernet]
    assert scheme.trained == ("shared", "hypernet", "embedding")
    assert not scheme.adapts and not scheme.independent
    found = gradients(scheme, random_banks(scheme), 1)
    assert reached(found["shared"]) and reached(found["hypernet"])
    assert only_of(found["embedding"], 1)


@pytest.mark.full
def test_its_form_is_a_key():
    trained_by_name("hypermarl", "sharing.hypernet=linear", "sharing.embedding=3")
    trained_by_name("hypermarl", "sharing.layers=[linear_6,linear_7]", "sharing.hypernet_width=5")
    (scheme,) = REGISTRY.row("hypermarl").make(given(options={})).actor_phases
    assert random_banks(scheme)["hypernet"]["linear_1"]["kernel"]["in"].shape == (1, 8, 64)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.hypernet=deep"], "choose one of linear, mlp"),
        (["sharing.embedding=0"], "sharing.embedding=0 must be at least 1"),
        (["sharing.hypernet_width=0"], "sharing.hypernet_width=0 must be at least 1"),
        (["sharing.layers=[linear_9]"], "sharing.layers holds linear_9, which is no layer"),
        (["sharing.layers=[]"], "must be a list of layers from linear_1"),
        (["sharing.layers=linear_1"], "must be a list"),
    ],
)
def test_refused(words, told):
    assert told in refused("hypermarl", words)
