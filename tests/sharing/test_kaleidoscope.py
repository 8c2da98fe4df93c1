import jax
import jax.numpy as jnp
import numpy as np
import optax
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

from lorasa_jax.learn import team
from lorasa_jax.sharing import kaleidoscope as module
from lorasa_jax.sharing import ps
from lorasa_jax.sharing.kaleidoscope import KaleidoscopeKeys, kaleidoscope
from lorasa_jax.sharing.scheme import When

KEYS = KaleidoscopeKeys(diversity=0.5, reset_every=3, reset_ratio=0.5)
SCHEME = kaleidoscope(AGENTS, KEYS)
ORDER = ["linear_1", "linear_2", "linear_3", "linear_6", "linear_7"]


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


@pytest.fixture(scope="module")
def banks():
    return random_banks(SCHEME)


@pytest.mark.parametrize("kind", ["gru", "lstm", "ff"])
def test_kernels_are_shrunk_by_the_agents_thresholds(kind):
    banks = random_banks(SCHEME, kind)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.asarray(x[0]), banks["shared"])
        for layer, logits in banks["thresholds"].items():
            kernel, limits = wanted[layer]["kernel"], sigmoid(logits[i])
            changed = np.zeros_like(kernel)
            for place, w in np.ndenumerate(kernel):
                if abs(w) > limits[place]:
                    changed[place] = np.sign(w) * (abs(w) - limits[place])
            wanted[layer] = {**wanted[layer], "kernel": changed}
        close(own, wanted)


def test_with_thresholds_of_zero_it_is_full_sharing(banks):
    none = {layer: jnp.full_like(x, -200.0) for layer, x in banks["thresholds"].items()}
    shared = own_weights(ps(AGENTS), {"net": banks["shared"]})
    jax.tree.map(
        np.testing.assert_array_equal, own_weights(SCHEME, {**banks, "thresholds": none}), shared
    )


def test_it_begins_close_to_the_network_that_it_takes_over():
    old = begun(ps(AGENTS))
    banks = SCHEME.adopt(jax.random.key(1), old)
    for own, shared in zip(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old), strict=True):
        gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), own, shared)
        assert max(jax.tree.leaves(gap)) <= sigmoid(-5) + 1e-6
        assert max(jax.tree.leaves(gap)) > 0


def by_hand(banks):
    """The diversity loss, pair by pair and entry by entry."""
    total, entries = 0.0, 0
    for depth, layer in enumerate(ORDER):
        kernel = np.abs(np.asarray(banks["shared"][layer]["kernel"][0], float))
        masks = [kernel > sigmoid(x) for x in banks["thresholds"][layer]]
        for one in masks:
            for other in masks:
                total += 2 ** min(depth, 3) * np.sum((one != other) * kernel)
        entries += kernel.size
    return -total / (AGENTS * (AGENTS - 1) * entries)


def test_the_diversity_loss_is_that_of_all_pairs(banks):
    _, measures = SCHEME.penalty(banks, None)
    np.testing.assert_allclose(measures["diversity_loss"], by_hand(banks), rtol=1e-5)


def test_its_gradient_reaches_thresholds_alone_and_drives_masks_apart(banks):
    losses = {"policy": jnp.full((1, 100), 2.0), "diversity": jnp.full((1, 100), -1.0)}
    banks = {**banks, "losses": losses}
    found, measures = jax.grad(lambda b: SCHEME.penalty(b, None), has_aux=True)(banks)
    assert float(measures["diversity_weight"]) == 1.0  # |0.5 * 2 / -1|
    assert not any(np.abs(x).any() for x in jax.tree.leaves(found["shared"]))
    entries = sum(banks["shared"][layer]["kernel"].size for layer in ORDER)
    for depth, layer in enumerate(ORDER):
        kernel = np.abs(np.asarray(banks["shared"][layer]["kernel"][0], float))
        limits = sigmoid(banks["thresholds"][layer])
        masks = (kernel > limits).astype(float)
        for i in range(AGENTS):
            # of sum_jk |M_j - M_k| |W| to M_i, which passes tanh, then |W| - sigmoid(s)
            apart = 2 * sum(np.sign(masks[i] - masks[j]) for j in range(AGENTS))
            scale = -(2.0 ** min(depth, 3)) / (AGENTS * (AGENTS - 1) * entries)
            wanted = np.tanh(scale * apart * kernel) * -limits[i] * (1 - limits[i])
            np.testing.assert_allclose(found["thresholds"][layer][i], wanted, rtol=1e-3, atol=1e-9)


def test_a_mask_all_have_is_in_nobodys_way(banks):
    everyone = {layer: jnp.full_like(x, -200.0) for layer, x in banks["thresholds"].items()}
    _, measures = SCHEME.penalty({**banks, "thresholds": everyone}, None)
    assert float(measures["diversity_loss"]) == 0.0


def test_the_weight_follows_the_last_hundred_updates():
    losses = begun(SCHEME)["losses"]
    assert float(module.weight_of(losses, 0.5)) == 0.0
    pairs = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    append = jax.jit(module.appended)
    for policy, diversity in pairs:
        losses = append(losses, policy, diversity)
    policy, diversity = pairs[-100:].mean(0)
    wanted = abs(0.5 * policy / diversity)
    np.testing.assert_allclose(module.weight_of(losses, 0.5), wanted, rtol=1e-4)


def test_an_agents_loss_reaches_what_it_uses_and_its_own_thresholds(banks):
    assert SCHEME.trained == ("shared", "thresholds") and not SCHEME.independent
    assert SCHEME.banks["losses"].memory
    found = gradients(SCHEME, banks, 2)
    assert reached(found["shared"]) and only_of(found["thresholds"], 2)
    kernel = banks["shared"]["linear_2"]["kernel"][0]
    masked = np.abs(kernel) <= sigmoid(banks["thresholds"]["linear_2"][2])
    assert masked.any()
    assert not np.asarray(found["shared"]["linear_2"]["kernel"][0])[masked].any()
    assert not np.asarray(found["thresholds"]["linear_2"][2])[masked].any()


def after(banks, opt_state, done, of=12, key=0):
    reports = {"policy_loss": jnp.ones(()), "diversity_loss": -jnp.ones(())}
    when = When(jnp.asarray(done), of)
    return jax.jit(lambda b, o: SCHEME.after_update(b, o, reports, when, jax.random.key(key)))(
        banks, opt_state
    )


@pytest.fixture(scope="module")
def learner(banks):
    """Optimiser states of ones."""
    role = team.Role(None, SCHEME, optax.adam(1e-2), 5)
    return jax.tree.map(jnp.ones_like, team.start(role, banks).opt_state)


def test_resets_draw_weights_that_all_mask_anew_and_no_others(banks, learner):
    changed, opt_state, measures = after(banks, learner, 3)
    moved, left = 0, 0
    for layer in ORDER:
        kernel = np.asarray(banks["shared"][layer]["kernel"][0])
        unused = np.all(np.abs(kernel) <= sigmoid(banks["thresholds"][layer]), axis=0)
        new = np.asarray(changed["shared"][layer]["kernel"][0])
        different = new != kernel
        assert not different[~unused].any()
        assert np.abs(new[different]).max(initial=0) <= len(kernel) ** -0.5
        logits = np.asarray(changed["thresholds"][layer])
        np.testing.assert_array_equal((logits != banks["thresholds"][layer]).all(0), different)
        assert ((logits[:, different] >= -10) & (logits[:, different] <= -5)).all()
        for name in ("mu", "nu"):
            state = optax.tree_utils.tree_get(opt_state["shared"], name)
            np.testing.assert_array_equal(state[layer]["kernel"][0] == 0, different)
            assert (np.asarray(state[layer]["bias"]) == 1).all()
            state = optax.tree_utils.tree_get(opt_state["thresholds"], name)
            np.testing.assert_array_equal((state[layer] == 0).all(0), different)
        moved, left = moved + different.sum(), left + (unused & ~different).sum()
    assert moved > 0 and left > 0 and float(measures["redrawn"]) == moved
    assert 0.3 < moved / (moved + left) < 0.7


@pytest.mark.parametrize("done", [0, 1, 2, 4, 10, 12])
def test_between_resets_and_in_the_last_interval_nothing_is_drawn(done, banks, learner):
    changed, opt_state, measures = after(banks, learner, done)
    for name in ("shared", "thresholds"):
        jax.tree.map(np.testing.assert_array_equal, changed[name], banks[name])
    jax.tree.map(np.testing.assert_array_equal, opt_state, learner)
    assert float(measures["redrawn"]) == 0
    masks = [
        np.abs(banks["shared"][layer]["kernel"]) > sigmoid(banks["thresholds"][layer])
        for layer in ORDER
    ]
    open_ = sum(x.sum() for x in masks) / sum(x.size for x in masks)
    np.testing.assert_allclose(measures["sparsity"], 1 - open_, rtol=1e-5)


@pytest.mark.full
def test_the_key_decides_what_is_drawn(banks, learner):
    one, same, other = (after(banks, learner, 3, key=key)[0]["shared"] for key in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one["linear_2"]["kernel"], other["linear_2"]["kernel"])


@pytest.mark.full
def test_what_is_masked_is_a_key():
    trained_by_name("kaleidoscope", "sharing.layers=[linear_6,gru_h_5]", "sharing.reset_every=2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.diversity=-1"], "sharing.diversity=-1 must be at least 0"),
        (["sharing.reset_every=0"], "sharing.reset_every=0 must be at least 1"),
        (["sharing.reset_ratio=1.5"], "sharing.reset_ratio=1.5 must be at least 0 and at most 1"),
        (["sharing.layers=[conv_1]"], "sharing.layers holds conv_1, which is no layer"),
    ],
)
def test_refused(words, told):
    assert told in refused("kaleidoscope", words)
