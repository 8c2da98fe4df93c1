import jax
import jax.numpy as jnp

from lorasa_jax.training.checkpoint import Checkpoints


def test_states_with_empty_arrays_are_kept(tmp_path):
    """Some environments have them, such as MPE's teams that say nothing."""
    state = {"said": jnp.zeros((3, 0), jnp.float32), "key": jax.random.key(4), "at": jnp.arange(2)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, {})
    restored = checkpoints.restore(1, jax.eval_shape(lambda: state))
    assert restored["said"].shape == (3, 0) and restored["said"].dtype == jnp.float32
    assert (restored["at"] == state["at"]).all()
    assert (jax.random.key_data(restored["key"]) == jax.random.key_data(state["key"])).all()
    checkpoints.close()
