"""Everything a run needs to go on, kept by Orbax so that no moment of failure can lose it.

A checkpoint is one folder named after its update. Orbax writes it beside the others and renames
it when it is complete; the last two and the ends of phases are kept.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lorasa_jax.errors import TrainingError

# Orbax reports its every step as a warning or info through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """Saved states of one run, by update.

    folder: where they lie; kept_updates: updates whose checkpoints are never deleted. read_only:
    touch nothing, for folders that another process may be writing to.
    """

    def __init__(self, folder: Path, kept_updates: tuple[int, ...] = (), *, read_only=False):
        self.folder = folder
        keep = preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(2), preservation_policy.CustomSteps(set(kept_updates))]
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def latest(self) -> int | None:
        """The newest checkpoint's update, or None."""
        return self._manager.latest_step()

    def all(self) -> list[int]:
        """The updates that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, update: int, state: Any, meta: dict) -> None:
        """Writes a pytree of arrays and keys, and a dictionary beside it.

        Raises TrainingError where the disk refuses; earlier checkpoints are untouched.
        """
        if update == self.latest():
            return
        try:
            self._manager.save(
                update,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_to_numpy(state)), meta=ocp.args.JsonSave(meta)
                ),
            )
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"checkpoint {update} could not be written to {self.folder} ({_reason(error)}); "
                f"the last good one is {self.latest() or 'none'}: free the disk and run the same "
                "command again."
            ) from error

    def meta(self, update: int) -> dict:
        return self._manager.restore(update, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
            "meta"
        ]

    def restore(self, update: int, like: Any) -> Any:
        """The state of `update`; `like` is a state of the same shapes and types (never read)."""
        abstract = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(_keys_to_data, like)
        )
        saved = self._manager.restore(
            update, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )["state"]
        return jax.tree.map(
            lambda old, new: (
                jax.random.wrap_key_data(jnp.asarray(new)) if _is_key(old) else jnp.asarray(new)
            ),
            like,
            saved,
        )

    def close(self) -> None:
        self._manager.close()


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _keys_to_data(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _to_numpy(tree):
    return jax.tree.map(np.asarray, _keys_to_data(tree))


def _reason(error):
    return " ".join(str(error).split())[:200]
