"""A run's saved state, kept by Orbax so that a failure at any moment does not lose it.

A checkpoint is one folder named after its update. Orbax writes it beside the others and renames
it when it is complete; the last two and the ends of phases are kept.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lorasa_jax.errors import TrainingError

# Orbax reports its every step as a warning or info through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)
NOTHING = MappingProxyType({})


class Checkpoints:
    """Saved states of one run, by update.

    folder: where they lie; kept_updates: updates whose checkpoints are never deleted. read_only:
    touch nothing, for folders that another process may be writing to.
    """

    def __init__(self, folder: Path, kept_updates: tuple[int, ...] = (), *, read_only=False):
        self.folder = folder
        keep = preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(2), preservation_policy.CustomSteps(kept_updates)]
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

    def restore(self, update: int, like: Any, later: Mapping[str, Any] = NOTHING) -> Any:
        """The state of `update`; `like` is a state of the same shapes and types (never read).

        later: {field of `like`: value}; entries of that field, a dictionary, which a checkpoint of
        an earlier version lacks, get this value.
        """
        stored = self._stored(update)
        missing = {
            name: [key for key in getattr(like, name) if (name, key) not in stored]
            for name in later
        }
        abstract = jax.tree.map(
            lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(_keys_to_data, like)
        )
        requested = (
            abstract._replace(
                **{
                    name: {key: x for key, x in getattr(abstract, name).items() if key not in keys}
                    for name, keys in missing.items()
                }
            )
            if later
            else abstract
        )
        stored_form = _without_none(_with_placeholders(requested))
        saved = self._manager.restore(
            update, args=ocp.args.Composite(state=ocp.args.StandardRestore(stored_form))
        )["state"]
        saved = _with_none(requested, saved)
        for name, keys in missing.items():
            new = {key: np.full_like(getattr(abstract, name)[key], later[name]) for key in keys}
            saved = saved._replace(**{name: {**getattr(saved, name), **new}})
        return jax.tree.map(_restored, like, saved)

    def _stored(self, update):
        """The paths of a checkpoint's arrays."""
        path = self.folder / str(update) / "state" / "_METADATA"
        arrays = json.loads(path.read_text())["tree_metadata"].values()
        return {tuple(key["key"] for key in array["key_metadata"]) for array in arrays}

    def close(self) -> None:
        self._manager.close()


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _keys_to_data(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _to_numpy(tree):
    return _without_none(_with_placeholders(jax.tree.map(np.asarray, _keys_to_data(tree))))


def _with_placeholders(tree):
    """The tree with arrays of one zero in place of empty ones, which Orbax refuses to store."""
    return jax.tree.map(lambda x: x if x.size else np.zeros(1, x.dtype), tree)


def _restored(like, stored):
    """A stored array as the state has it: a key, an empty array, or what was stored."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(stored))
    return jnp.asarray(stored) if like.size else jnp.zeros(like.shape, like.dtype)


def _without_none(tree) -> Any:
    """The tree with tuples that have None fields as dictionaries without those fields.

    To Orbax a field of None differs from one that is absent, as before it was added.
    """
    if isinstance(tree, dict):
        return {key: _without_none(x) for key, x in tree.items()}
    if not hasattr(tree, "_fields"):
        return tuple(map(_without_none, tree)) if isinstance(tree, tuple) else tree
    if any(x is None for x in tree):
        return {key: _without_none(x) for key, x in tree._asdict().items() if x is not None}
    return type(tree)(*map(_without_none, tree))


def _with_none(like, stored) -> Any:
    """A tree of `_without_none`, in the structure of `like`."""
    if isinstance(like, dict):
        return {key: _with_none(like[key], x) for key, x in stored.items()}
    if not hasattr(like, "_fields"):
        return tuple(map(_with_none, like, stored)) if isinstance(like, tuple) else stored
    parts = stored if isinstance(stored, dict) else stored._asdict()
    fields = like._asdict().items()
    return type(like)(*(None if x is None else _with_none(x, parts[key]) for key, x in fields))


def _reason(error):
    return " ".join(str(error).split())[:200]
