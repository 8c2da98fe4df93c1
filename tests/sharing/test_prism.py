import itertools

import jax
import jax.numpy as jnp
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
    reached,
    refused,
    trained_by_name,
)

from lorasa_jax.sharing import ps
from lorasa_jax.sharing.prism import PrismKeys, prism

KEYS = PrismKeys(orthogonality=0.3, diversity=0.2)
SCHEME = prism(AGENTS, KEYS)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


@pytest.mark.parametrize("kind", ["gru", "lstm", "ff"])
def test_kernels_are_masked_sums_of_shared_directions(kind):
    banks = random_banks(SCHEME, kind)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.asarray(x[0], float), banks["shared"])
        for layer, logits in banks["masks"].items():
            parts, masks = wanted[layer], sigmoid(logits[i])
            kernel = np.zeros((len(parts["left"]), parts["right"].shape[1]))
            for q, value in enumerate(parts["singular"]):
                kernel += masks[q] * value * np.outer(parts["left"][:, q], parts["right"][q])
            wanted[layer] = {"kernel": kernel, "bias": parts["bias"]}
        close(own, wanted)


@pytest.mark.parametrize("kind", ["gru", "ff"])
def test_agents_begin_as_one_network(kind):
    old = begun(ps(AGENTS), kind)
    banks = SCHEME.adopt(jax.random.key(1), old)
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old))


def test_the_penalty_is_what_its_formula_says():
    banks = random_banks(SCHEME)
    shared = jax.tree.map(lambda x: np.asarray(x[0], float), banks["shared"])
    distances, squares = [], []
    for layer, logits in banks["masks"].items():
        left, right = shared[layer]["left"], shared[layer]["right"].T
        distances.append(sum(np.square(x.T @ x - np.eye(x.shape[1])).sum() for x in (left, right)))
        for i, j in itertools.permutations(range(AGENTS), 2):
            squares.append(np.square(sigmoid(logits[i]) - sigmoid(logits[j])))
    entries = sum(logits.shape[1] for logits in banks["masks"].values())
    apart = sum(x.sum() for x in squares) / (AGENTS * (AGENTS - 1) * entries)
    loss, measures = SCHEME.penalty(banks, jax.random.key(0))
    np.testing.assert_allclose(measures["orthogonality"], np.mean(distances), rtol=1e-5)
    np.testing.assert_allclose(measures["mask_diversity"], apart, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.3 * np.mean(distances) - 0.2 * apart, rtol=1e-5)


def test_directions_are_orthonormal_and_masks_alike_at_first():
    _, measures = SCHEME.penalty(begun(SCHEME), jax.random.key(0))
    assert abs(float(measures["orthogonality"])) < 1e-8
    assert abs(float(measures["mask_diversity"])) < 1e-12


def test_descent_on_the_penalty_alone_makes_directions_orthonormal_and_masks_differ():
    banks = random_banks(prism(AGENTS, KEYS), "ff")
    banks = jax.tree.map(lambda x: 0.3 * x, banks)

    @jax.jit
    def step(banks, _):
        gradient, measures = jax.grad(lambda b: SCHEME.penalty(b, None), has_aux=True)(banks)
        return jax.tree.map(lambda x, g: x - 0.1 * g, banks, gradient), measures

    _, measures = jax.lax.scan(step, banks, None, length=300)
    assert measures["orthogonality"][-1] < 0.1 * measures["orthogonality"][0]
    assert measures["mask_diversity"][-1] > measures["mask_diversity"][0]


def test_one_agent_has_nobody_to_differ_from():
    loss, measures = prism(1, KEYS).penalty(begun(prism(1, KEYS)), jax.random.key(0))
    assert float(measures["mask_diversity"]) == 0.0 and np.isfinite(loss)


def test_of_equal_masks_it_is_one_network():
    banks = random_banks(SCHEME)
    banks["masks"] = jax.tree.map(lambda x: x.at[:].set(x[0]), banks["masks"])
    first, *others = own_weights(SCHEME, banks)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)


def test_an_agents_loss_reaches_all_directions_and_its_own_masks():
    assert SCHEME.trained == ("shared", "masks") and not SCHEME.independent
    found = gradients(SCHEME, random_banks(SCHEME), 0)
    assert reached(found["shared"]) and only_of(found["masks"], 0)


def test_an_agent_has_a_number_for_every_direction():
    banks = random_banks(SCHEME)
    per_agent = sum(x[0].size for x in jax.tree.leaves(banks["masks"]))
    net = begun(ps(AGENTS))["net"]
    kernels = [x["kernel"][0].shape for x in net.values() if "kernel" in x]
    assert per_agent == sum(map(min, kernels))


@pytest.mark.full
def test_weights_are_keys():
    trained_by_name("prism", "sharing.orthogonality=0", "sharing.diversity=0")
    assert jnp.isfinite(SCHEME.penalty(begun(SCHEME), None)[0])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.orthogonality=-1"], "sharing.orthogonality=-1 must be at least 0"),
        (["sharing.diversity=-0.1"], "sharing.diversity=-0.1 must be at least 0"),
        (["sharing.diversity=much"], "sharing.diversity=much"),
    ],
)
def test_refused(words, told):
    assert told in refused("prism", words)
