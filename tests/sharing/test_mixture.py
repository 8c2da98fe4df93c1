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

from lorasa_jax.sharing import REGISTRY, ps
from lorasa_jax.sharing.mixture import mixture

SCHEME = mixture(AGENTS, 3)


@pytest.mark.parametrize("kind", ["gru", "lstm", "ff"])
def test_kernels_are_the_agents_mixtures(kind):
    banks = random_banks(SCHEME, kind)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.asarray(x[0]), banks["shared"])
        for layer, logits in banks["logits"].items():
            shares = np.exp(logits[i]) / np.exp(logits[i]).sum()
            mixed = np.zeros(wanted[layer]["kernel"].shape[1:])
            for k in range(3):
                mixed += shares[k] * wanted[layer]["kernel"][k]
            wanted[layer] = {**wanted[layer], "kernel": mixed}
        close(own, wanted)


def test_agents_begin_alike_with_weights_of_the_usual_size():
    banks = begun(SCHEME)
    first, *others = own_weights(SCHEME, banks)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    kernels = np.asarray(banks["shared"]["linear_2"]["kernel"][0])
    for kernel in kernels:
        close(kernel.T @ kernel, 3 * 2 * np.eye(8))
    close(first["linear_2"]["kernel"], kernels.mean(0))


def test_a_network_taken_over_stays_as_it_was_and_its_copies_part():
    old = begun(ps(AGENTS))
    banks = SCHEME.adopt(jax.random.key(1), old)
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old))
    found = gradients(SCHEME, banks, 0)["shared"]["linear_2"]["kernel"][0]
    shares = jax.nn.softmax(banks["logits"]["linear_2"][0])
    assert np.abs(np.diff(shares)).min() > 0.01
    close(found / shares[:, None, None], jnp.stack([found.sum(0)] * 3))


def test_with_one_kernel_it_is_full_sharing():
    scheme = mixture(AGENTS, 1)
    banks = random_banks(scheme)
    net = {
        layer: {**x, "kernel": x["kernel"][:, 0]} if "kernel" in x else x
        for layer, x in banks["shared"].items()
    }
    close(own_weights(scheme, banks), own_weights(ps(AGENTS), {"net": net}))


def test_of_equal_logits_it_is_one_network():
    banks = random_banks(SCHEME)
    banks["logits"] = jax.tree.map(lambda x: x.at[:].set(x[0]), banks["logits"])
    first, *others = own_weights(SCHEME, banks)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)


def test_a_logit_that_outweighs_all_chooses_a_kernel():
    banks = random_banks(SCHEME)
    chosen = 100.0 * jnp.eye(3)
    banks["logits"] = {layer: chosen for layer in banks["logits"]}
    for i, own in enumerate(own_weights(SCHEME, banks)):
        close(own["gru_h_5"]["kernel"], banks["shared"]["gru_h_5"]["kernel"][0, i])


def test_an_agents_loss_reaches_all_kernels_and_its_own_logits():
    assert SCHEME.trained == ("shared", "logits")
    assert not SCHEME.adapts and not SCHEME.independent
    found = gradients(SCHEME, random_banks(SCHEME), 0)
    assert reached(found["shared"]) and only_of(found["logits"], 0)


def test_how_many_is_a_key():
    trained_by_name("mixture", "sharing.kernels=2")
    for options, count in (({}, 4), ({"kernels": 2}, 2)):
        (scheme,) = REGISTRY.row("mixture").make(given(options=options)).actor_phases
        assert random_banks(scheme)["logits"]["linear_1"].shape == (AGENTS, count)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.kernels=0"], "sharing.kernels=0 must be at least 1"),
        (["sharing.kernels=many"], "whole number"),
        (["sharing.pruned=0.5"], "not a key of sharing=mixture"),
    ],
)
def test_refused(words, told):
    assert told in refused("mixture", words)
