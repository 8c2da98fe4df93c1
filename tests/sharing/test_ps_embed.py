import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scheme_parts import (
    AGENTS,
    FEATURES,
    WIDTH,
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

from lorasa_jax.policy.networks import standardise
from lorasa_jax.sharing import REGISTRY, ps
from lorasa_jax.sharing.ps_embed import ps_embed

SCHEME = ps_embed(AGENTS, 4)


def test_the_first_bias_is_offset_by_the_embedding_times_the_map():
    banks = random_banks(SCHEME)
    vectors, kernel = np.asarray(banks["embedding"]["vector"]), np.asarray(banks["map"]["kernel"])
    assert vectors.shape == (AGENTS, 4) and kernel.shape == (1, 4, WIDTH)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.asarray(x[0]), banks["net"])
        offset = np.zeros(WIDTH)
        for j in range(4):
            offset += vectors[i, j] * kernel[0, j]
        wanted["linear_1"]["bias"] = wanted["linear_1"]["bias"] + offset
        close(own, wanted)


def test_it_is_the_embedding_concatenated_to_the_input():
    banks = random_banks(SCHEME)
    kernel, bias = (np.asarray(banks["net"]["linear_1"][x][0]) for x in ("kernel", "bias"))
    x = np.asarray(standardise(jnp.arange(float(FEATURES)) ** 2))
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wide = np.concatenate([x, banks["embedding"]["vector"][i]])
        rows = np.concatenate([kernel, banks["map"]["kernel"][0]])
        close(x @ own["linear_1"]["kernel"] + own["linear_1"]["bias"], wide @ rows + bias)


def test_with_one_hot_embeddings_it_is_the_one_hot_id():
    scheme = ps_embed(AGENTS, AGENTS)
    banks = {**random_banks(scheme), "embedding": {"vector": jnp.eye(AGENTS)}}
    own = [weights["linear_1"]["bias"] for weights in own_weights(scheme, banks)]
    close(np.stack(own), np.asarray(banks["net"]["linear_1"]["bias"] + banks["map"]["kernel"][0]))


def test_agents_begin_apart_and_a_network_taken_over_as_it_was():
    banks = begun(SCHEME)
    kernel = np.asarray(banks["map"]["kernel"][0])
    close(kernel @ kernel.T, 2 * np.eye(4))
    biases = [own["linear_1"]["bias"] for own in own_weights(SCHEME, banks)]
    assert np.abs(biases[0] - biases[1]).max() > 0.1
    old = begun(ps(AGENTS))
    taken = SCHEME.adopt(jax.random.key(1), old)
    close(own_weights(SCHEME, taken), own_weights(ps(AGENTS), old))
    assert reached(gradients(SCHEME, taken, 0)["map"])


def test_an_agents_loss_reaches_network_and_map_and_its_own_embedding():
    assert SCHEME.trained == ("net", "map", "embedding")
    assert not SCHEME.adapts and not SCHEME.independent
    found = gradients(SCHEME, random_banks(SCHEME), 1)
    assert reached((found["net"], found["map"])) and only_of(found["embedding"], 1)


def test_of_equal_embeddings_it_is_one_network():
    banks = random_banks(SCHEME)
    banks["embedding"] = jax.tree.map(jnp.zeros_like, banks["embedding"])
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), {"net": banks["net"]}))


@pytest.mark.full
def test_the_width_is_a_key():
    trained_by_name("ps_embed", "sharing.embedding=3", "env.agent_ids=false")
    for options, width in (({}, 8), ({"embedding": 3}, 3)):
        (scheme,) = REGISTRY.row("ps_embed").make(given(options=options)).actor_phases
        assert begun(scheme)["embedding"]["vector"].shape == (AGENTS, width)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.embedding=0"], "sharing.embedding=0 must be at least 1"),
        (["sharing.embedding=2.5"], "whole number"),
        (["sharing.rank=8"], "not a key of sharing=ps_embed"),
        (["switch_at=4000"], "needs a second phase"),
    ],
)
def test_refused(words, told):
    assert told in refused("ps_embed", words)
