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
from lorasa_jax.sharing.hps import hps, unit

SCHEME = hps(AGENTS)


@pytest.mark.parametrize("kind", ["gru", "lstm", "ff"])
def test_columns_are_unit_directions_times_the_agents_scales(kind):
    banks = random_banks(SCHEME, kind)
    for i, own in enumerate(own_weights(SCHEME, banks)):
        wanted = jax.tree.map(lambda x: np.array(x[0]), banks["directions"])
        for layer, scales in banks["scales"].items():
            kernel = wanted[layer]["kernel"]
            for column in range(kernel.shape[1]):
                length = np.sqrt(np.sum(kernel[:, column] ** 2))
                kernel[:, column] *= scales[i, column] / length
        close(own, wanted)


def test_all_agents_begin_as_the_network_that_it_takes_over():
    old = begun(ps(AGENTS))
    banks = SCHEME.adopt(jax.random.key(1), old)
    close(own_weights(SCHEME, banks), own_weights(ps(AGENTS), old))
    lengths = jnp.linalg.norm(banks["directions"]["linear_2"]["kernel"], axis=-2)
    close(lengths, np.ones((1, 8)))
    close(own_weights(SCHEME, begun(SCHEME)), own_weights(ps(AGENTS), old))


def test_of_equal_scales_it_is_one_network_with_those_lengths():
    banks = random_banks(SCHEME)
    banks["scales"] = jax.tree.map(lambda x: x.at[:].set(x[0]), banks["scales"])
    first, *others = own_weights(SCHEME, banks)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, first)
    lengths = np.linalg.norm(first["linear_3"]["kernel"], axis=0)
    close(lengths, np.abs(banks["scales"]["linear_3"][0]))


def test_an_agents_loss_reaches_the_directions_tangentially_and_its_own_scales():
    assert SCHEME.trained == ("directions", "scales")
    assert not SCHEME.adapts and not SCHEME.independent
    banks = random_banks(SCHEME)
    found = gradients(SCHEME, banks, 2)
    assert reached(found["directions"]) and only_of(found["scales"], 2)
    for layer in banks["scales"]:
        kernel, gradient = banks["directions"][layer]["kernel"], found["directions"][layer]
        radial = np.abs(np.sum(kernel * gradient["kernel"], axis=-2))
        sizes = np.linalg.norm(kernel, axis=-2) * np.linalg.norm(gradient["kernel"], axis=-2)
        assert np.all(radial <= 1e-4 * sizes + 1e-6)


def test_a_column_of_zeros_stays_and_has_a_finite_gradient():
    kernel = jnp.zeros((4, 2)).at[0, 1].set(3.0)
    np.testing.assert_array_equal(unit(kernel), kernel / 3)
    assert np.isfinite(jax.grad(lambda x: unit(x).sum())(kernel)).all()


@pytest.mark.full
def test_a_run_of_it_has_one_phase_and_no_keys():
    (team,) = trained_by_name("hps")
    assert set(team.actor.scheme.banks) == {"directions", "scales"}
    assert set(team.critic.scheme.banks) == {"net"}
    assert "not a key of sharing=hps" in refused("hps", ["sharing.rank=8"])
    assert "needs a second phase" in refused("hps", ["switch_at=4000"])
