import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn.losses import policy_loss, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 3.0, -3.0),
        (1.25, 2.0, -2.5),
        (2.0, 2.0, -3.0),
        (2.0, -2.0, 4.0),
        (0.25, 2.0, -0.5),
        (0.25, -2.0, 1.0),
    ],
    ids=["one", "inside", "above_good", "above_bad", "below_good", "below_bad"],
)
def test_policy_loss_takes_the_worse_of_ratio_and_clipped_ratio(ratio, advantage, loss):
    assert policy_loss(jnp.array([ratio]), jnp.array(advantage), 0.5) == loss


@pytest.mark.parametrize(("ratio", "advantage"), [(2.0, 1.0), (0.25, -1.0)])
def test_policy_loss_gives_no_reason_to_go_further_beyond_the_clip(ratio, advantage):
    gradient = jax.grad(lambda ratio: policy_loss(ratio, jnp.array(advantage), 0.5))
    assert gradient(jnp.array([ratio])) == 0.0
    assert gradient(jnp.array([1.0])) == -advantage


def test_policy_loss_clips_every_dimension_by_itself_and_adds_them():
    ratio = jnp.array([[2.0, 0.25, 1.0], [2.0, 0.25, 1.0]])
    loss = policy_loss(ratio, jnp.array([1.0, -1.0]), 0.5)
    np.testing.assert_array_equal(loss, [-(1.5 + 0.25 + 1.0), 2.0 + 0.5 + 1.0])


@pytest.mark.parametrize(
    ("value", "old", "target", "loss"),
    [
        (0.25, 0.0, 1.0, 0.5 * 0.75**2),
        (2.0, 0.0, 2.5, 0.5 * 2.0**2),
        (2.0, 0.0, 0.5, 0.5 * 1.5**2),
        (-2.0, 0.0, -2.5, 0.5 * 2.0**2),
        (-2.0, 0.0, -0.5, 0.5 * 1.5**2),
    ],
    ids=["inside", "above_clipped_worse", "above_worse", "below_clipped_worse", "below_worse"],
)
def test_value_loss_is_the_larger_of_the_values_and_its_clipped_moves(value, old, target, loss):
    assert value_loss(*map(jnp.array, (value, old, target)), 0.5) == loss


@pytest.mark.parametrize("error", [25.0, -25.0])
def test_value_loss_is_linear_beyond_ten_on_both_sides(error):
    loss = value_loss(jnp.array(1.0), jnp.array(1.0), jnp.array(1.0 + error), 0.5)
    assert loss == 10.0 * (25.0 - 5.0)


def test_value_loss_has_no_gradient_where_the_clipped_move_is_the_worse():
    gradient = jax.grad(value_loss)
    assert gradient(2.0, 0.0, 2.5, 0.5) == 0.0
    assert gradient(2.0, 0.0, 0.5, 0.5) == 1.5
