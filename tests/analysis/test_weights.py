import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.analysis import weights
from lorasa_jax.policy.networks import LAYERS

CONTINUOUS = ("env=probe_action_continuous",)


@pytest.fixture(scope="module")
def planted(build, random_banks):
    """Rank-2 adapters on a backbone, all random."""
    team = build("switch_at=200", "sharing.rank=2", sharing="ps_lora")
    return team.actor.scheme, random_banks(team.actor)


def test_norms_of_planted_deltas(planted):
    scheme, banks = planted
    found = weights.norms(scheme, banks)
    assert list(found.merged) == list(LAYERS)
    adapter = banks["adapters"]["gru_x_4"]
    for agent in range(2):
        delta = np.asarray(adapter["a"][agent], float) @ np.asarray(adapter["b"][agent], float)
        kernel = np.asarray(banks["net"]["gru_x_4"]["kernel"][0], float)
        expected = {
            "shared": np.sqrt(np.sum(kernel**2)),
            "delta": np.sqrt(np.sum(delta**2)),
            "merged": np.sqrt(np.sum((kernel + delta) ** 2)),
            "inner": np.sum(kernel * delta),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(found, name)["gru_x_4"][agent], value, rtol=1e-5)


def test_squared_norms_add_up_with_the_inner_product(planted):
    found = weights.norms(*planted)
    for layer in LAYERS:
        sides = found.shared[layer] ** 2 + found.delta[layer] ** 2 + 2 * found.inner[layer]
        np.testing.assert_allclose(found.merged[layer] ** 2, sides, rtol=1e-5)
        assert np.all(found.delta[layer] > 0.1)


def test_the_table_holds_means_over_agents(planted):
    found = weights.norms(*planted)
    table = weights.table(found)
    assert list(table) == list(LAYERS)
    for column in ("shared", "merged", "delta"):
        expected = np.asarray(getattr(found, column)["linear_6"]).mean()
        assert table["linear_6"][column] == pytest.approx(expected, rel=1e-6)
    assert len(set(table["linear_6"].values())) == 3


def test_a_layer_left_out_has_no_delta(build, random_banks):
    team = build("switch_at=200", "sharing.targets=[linear_*]", sharing="ps_lora")
    found = weights.norms(team.actor.scheme, random_banks(team.actor))
    assert not found.delta["gru_x_4"].any()
    np.testing.assert_array_equal(found.merged["gru_x_4"], found.shared["gru_x_4"])
    assert found.delta["linear_1"].all()


def test_deltas_are_exact_where_differences_are_rounded(planted):
    scheme, banks = planted
    tiny = {**banks, "adapters": {k: dict(v) for k, v in banks["adapters"].items()}}
    tiny["adapters"]["linear_2"]["a"] = 1e-8 * banks["adapters"]["linear_2"]["a"]
    whole, small = (weights.matrices(weights.deltas(scheme, b))["linear_2"] for b in (banks, tiny))
    np.testing.assert_allclose(small, 1e-8 * whole, rtol=1e-5)


def test_common_weights_keep_what_deltas_have_alike(planted):
    scheme, banks = planted
    found = weights.common(scheme, banks)
    for layer in ("linear_1", "gru_h_5"):
        adapter = banks["adapters"][layer]
        deltas = np.asarray(adapter["a"], float) @ np.asarray(adapter["b"], float)
        expected = np.asarray(banks["net"][layer]["kernel"][0], float) + deltas.mean(0)
        for agent in range(2):
            np.testing.assert_allclose(found[layer]["kernel"][agent], expected, atol=1e-5)


def test_mean_and_spread_are_apart(build, random_banks):
    team = build(*CONTINUOUS, "network.log_std=linear")
    banks = random_banks(team.actor)
    found = weights.matrices(weights.merged(team.actor.scheme, banks))
    assert list(found) == [*LAYERS, "linear_7_log_std"]
    for layer in list(found)[-2:]:
        np.testing.assert_array_equal(found[layer][0], banks["net"][layer]["kernel"][0])


def test_a_free_vector_of_spreads_has_norms_of_its_own(build, random_banks):
    team = build(*CONTINUOUS, "switch_at=200", sharing="ps_lora")
    banks = random_banks(team.actor)
    found = weights.norms(team.actor.scheme, banks)
    assert list(found.merged) == [*LAYERS, "log_std"]
    shared, offset = banks["net"]["log_std"], banks["adapters"]["log_std"]["offset"]
    np.testing.assert_allclose(found.shared["log_std"], np.linalg.norm(shared, axis=-1), rtol=1e-6)
    np.testing.assert_allclose(found.delta["log_std"], np.linalg.norm(offset, axis=-1), rtol=1e-6)
    np.testing.assert_allclose(
        found.merged["log_std"], np.linalg.norm(shared + offset, axis=-1), rtol=1e-6
    )


def test_groups_have_their_own_backbones(random_banks, build):
    from lorasa_jax.sharing import adapted, grouped
    from lorasa_jax.sharing.spec import LoraSpec

    role = build().actor._replace(scheme=adapted(grouped((0, 1, 1)), LoraSpec(2)))
    banks = random_banks(role)
    found = weights.norms(role.scheme, banks)
    kernels = np.asarray(banks["net"]["linear_1"]["kernel"])
    expected = np.linalg.norm(kernels, axis=(1, 2))[[0, 1, 1]]
    np.testing.assert_allclose(found.shared["linear_1"], expected, rtol=1e-6)


def test_without_adapters_the_delta_is_zero_and_a_bare_trunk_is_refused(build, random_banks):
    apart = build(sharing="nps").actor
    found = weights.norms(apart.scheme, random_banks(apart))
    np.testing.assert_array_equal(found.merged["linear_2"], found.shared["linear_2"])
    assert not found.delta["linear_2"].any()
    split = build(sharing="mtl").actor
    with pytest.raises(ValueError, match="no backbone"):
        weights.norms(split.scheme, random_banks(split))


def test_shared_leaves_are_repeated_for_every_agent():
    tree = {"a": jnp.arange(3.0), "b": jnp.arange(4.0).reshape(2, 2)}
    found = weights.per_agent((tree, {"a": None, "b": 0}), 2)
    np.testing.assert_array_equal(found["a"], [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(found["b"], [[0, 1], [2, 3]])
