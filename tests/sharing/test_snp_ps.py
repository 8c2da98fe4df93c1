import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scheme_parts import (
    AGENTS,
    FEATURES,
    NETWORKS,
    WIDTH,
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

from lorasa_jax.sharing import REGISTRY, ps
from lorasa_jax.sharing.snp_ps import MaskKeys, snp_ps

SCHEME = snp_ps(AGENTS, MaskKeys())
GRU = {"linear_1": (None, "linear_1"), "linear_2": ("linear_1", "linear_2"),
       "linear_3": ("linear_2", "linear_3"), "gru_x_4": ("linear_3", "gru_h_5"),
       "gru_h_5": ("gru_h_5", "gru_h_5"), "linear_6": ("gru_h_5", "linear_6"),
       "linear_7": ("linear_6", None)}  # fmt: skip
FF = {"linear_1": (None, "linear_1"), "linear_2": ("linear_1", "linear_2"),
      "linear_6": ("linear_2", "linear_6"), "linear_7": ("linear_6", None)}  # fmt: skip
LSTM = {layer.replace("gru", "lstm"): tuple(x and x.replace("gru", "lstm") for x in masks)
        for layer, masks in GRU.items()} | {"linear_7_log_std": ("linear_6", None)}  # fmt: skip


def with_masks(kind="gru", scheme=SCHEME):
    """Random weights under the masks that the scheme draws."""
    shared = random_banks(scheme, kind)["shared"]
    return scheme.adopt(jax.random.key(0), {"net": shared})


@pytest.mark.parametrize(("kind", "sides"), [("gru", GRU), ("lstm", LSTM), ("ff", FF)])
def test_weights_are_kept_between_units_that_are_both_kept(kind, sides):
    banks = with_masks(kind)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.array(x[0]), banks["shared"])
        for layer, (reads, writes) in sides.items():
            kernel, bias = wanted[layer]["kernel"], wanted[layer]["bias"]
            for row in range(kernel.shape[0]):
                for column in range(kernel.shape[1]):
                    if reads and not banks["masks"][reads][i, row]:
                        kernel[row, column] = 0
                    if writes and not banks["masks"][writes][i, column % WIDTH]:
                        kernel[row, column] = bias[column] = 0
        close(own, wanted)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 8), (0.3, 6), (0.5, 4), (0.99, 1)])
def test_as_many_units_are_pruned_of_every_layer_as_the_share_says(share, kept):
    masks = with_masks(scheme=snp_ps(AGENTS, MaskKeys(share)))["masks"]
    assert set(masks) == {"linear_1", "linear_2", "linear_3", "gru_h_5", "linear_6"}
    for mask in masks.values():
        assert set(np.unique(mask)) <= {0.0, 1.0}
        np.testing.assert_array_equal(mask.sum(-1), [kept] * AGENTS)


def test_masks_are_of_their_own_seed():
    one, again, other = (
        with_masks(scheme=snp_ps(AGENTS, MaskKeys(mask_seed=seed)))["masks"] for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one["linear_2"], other["linear_2"])
    assert len({mask.tobytes() for mask in np.asarray(one["linear_2"])}) > 1
    assert not np.array_equal(one["linear_2"], one["linear_3"])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_pruned_unit_of_the_state_stays_at_zero(kind):
    banks, network = with_masks(kind), NETWORKS[kind]
    x = jax.random.normal(jax.random.key(1), (4, FEATURES))
    for i, own in enumerate(own_weights(SCHEME, banks)):
        carry = network.initial_carry()
        last, _ = network.apply({"params": own}, carry, x, jnp.zeros(4, bool))
        pruned = np.asarray(banks["masks"][f"{kind}_h_5"][i]) == 0
        for state in np.split(np.asarray(last), len(last) // WIDTH):
            assert np.all(state[pruned] == 0) and np.abs(state[~pruned]).min() > 0


def test_with_nothing_pruned_it_is_full_sharing():
    scheme = snp_ps(AGENTS, MaskKeys(pruned=0.0))
    banks = with_masks(scheme=scheme)
    own = own_weights(scheme, banks)
    jax.tree.map(
        np.testing.assert_array_equal, own, own_weights(ps(AGENTS), {"net": banks["shared"]})
    )


def test_it_begins_as_the_masked_part_of_a_fresh_network():
    banks = begun(SCHEME)
    jax.tree.map(np.testing.assert_array_equal, banks["shared"], begun(ps(AGENTS))["net"])
    jax.tree.map(np.testing.assert_array_equal, banks["masks"], with_masks()["masks"])


def test_an_agents_loss_reaches_the_units_that_it_keeps():
    assert SCHEME.trained == ("shared",) and not SCHEME.adapts and not SCHEME.independent
    banks = with_masks()
    found = gradients(SCHEME, banks, 1)["shared"]["linear_2"]
    reads, writes = (np.asarray(banks["masks"][x][1]) for x in ("linear_1", "linear_2"))
    assert np.all(found["kernel"][0][np.outer(reads, writes) == 0] == 0)
    assert np.all(found["bias"][0][writes == 0] == 0)
    assert reached(found)


def test_a_run_takes_the_keys():
    (team,) = trained_by_name("snp_ps", "sharing.pruned=0.25", "sharing.mask_seed=7")
    assert team.actor.scheme.trained == ("shared",)
    (scheme,) = REGISTRY.row("snp_ps").make(
        given(options={"pruned": 0.25, "mask_seed": 7})
    ).actor_phases  # fmt: skip
    wanted = snp_ps(AGENTS, MaskKeys(0.25, 7))
    jax.tree.map(
        np.testing.assert_array_equal,
        with_masks(scheme=scheme)["masks"], with_masks(scheme=wanted)["masks"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sharing.pruned=1"], "sharing.pruned=1 must be at least 0 and below 1"),
        (["sharing.pruned=-0.1"], "at least 0"),
        (["sharing.pruned=half"], "number"),
        (["sharing.mask_seed=-1"], "sharing.mask_seed=-1 must be at least 0"),
        (["sharing.kernels=2"], "not a key of sharing=snp_ps"),
    ],
)
def test_refused(words, told):
    assert told in refused("snp_ps", words)
