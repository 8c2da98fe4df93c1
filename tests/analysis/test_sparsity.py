import numpy as np
import pytest

from lorasa_jax.analysis import sparsity, weights


def test_the_curve_of_four_weights_by_hand():
    found = sparsity.curve(np.array([[-1.0, 2.0], [3.0, -5.0]]), np.array([0.5, 1.0, 2.5, 5.0, 6]))
    np.testing.assert_array_equal(found.percent, [100, 100, 50, 25, 0])


def test_thresholds_go_from_smallest_to_largest_inclusive():
    found = sparsity.curve(np.array([-1.0, 2.0, 3.0, -5.0]))
    assert len(found.thresholds) == 100
    assert (found.thresholds[0], found.thresholds[-1]) == (1.0, 5.0)
    assert (found.percent[0], found.percent[-1]) == (100.0, 25.0)
    # 1 + 4 k / 99 exceeds 2 from k = 25 on, 3 from k = 50 on.
    np.testing.assert_array_equal(found.percent, [100] + [75] * 24 + [50] * 25 + [25] * 50)


def test_the_curve_equals_the_captions_recipe():
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    sizes = np.abs(values.astype(float))
    thresholds = np.linspace(sizes.min(), sizes.max(), 100)
    expected = [(sizes >= threshold).mean() * 100 for threshold in thresholds]
    np.testing.assert_allclose(sparsity.curve(values).percent, expected, rtol=1e-12)


def test_a_policys_curves_count_the_backbone_once_and_every_agents_delta(build, random_banks):
    team = build("switch_at=200", "sharing.rank=2", sharing="ps_lora")
    banks = random_banks(team.actor)
    found = sparsity.sparsity(team.actor.scheme, banks)
    net, deltas = banks["net"], weights.deltas(team.actor.scheme, banks)
    for curve, tree, copies in ((found.shared, net, 1), (found.delta, deltas, 2)):
        sizes = np.abs(np.concatenate([
            np.ravel(part["kernel"]) for part in tree.values() if "kernel" in part
        ]))  # fmt: skip
        assert len(sizes) == copies * (6 * 8 + 3 * 8 * 8 + 2 * 8 * 24 + 8 * 2)
        assert curve.thresholds[-1] == pytest.approx(sizes.max())
        assert curve.percent[50] == pytest.approx((sizes >= curve.thresholds[50]).mean() * 100)
