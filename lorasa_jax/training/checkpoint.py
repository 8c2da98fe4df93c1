"""A run's saved state, kept by Orbax so that a failure at any moment does not lose it.

A checkpoint is one folder named after its update. Orbax writes it beside the others and renames
it when it is complete; the last two and the ends of phases are kept. Its digest is written last,
and checked whenever the checkpoint is read.
"""

import contextlib
import json
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training import digests

# Orbax reports its every step as a warning or info through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)
NOTHING = MappingProxyType({})
_PLAIN = re.compile(r"[\w./ +=,@%-]*")  # paths that Orbax neither globs nor takes for an address


class DamagedError(Exception):
    """A checkpoint is not what was written; says how."""


class UnfitError(Exception):
    """A checkpoint is whole, and does not fit the state that is asked for."""


def updates(folder: Path) -> list[int]:
    """The updates that have a checkpoint in `folder`, whole or not, oldest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"0|[1-9][0-9]{0,18}", name))


def meta(folder: Path, update: int) -> dict:
    """What was saved beside a state, once all of the checkpoint's files are known to be whole.

    Raises:
      DamagedError: they are not what was written.
      PermissionError: they may not be read.
    """
    path = folder / str(update)
    try:
        digested = digests.exists(path)
        damage = digests.damage(path, update) if digested else None
        if damage:
            raise DamagedError(damage)
        values = json.loads((path / "meta" / "metadata").read_bytes())
        if not isinstance(values, dict) or not isinstance(values.get("phase", 0), int):
            raise DamagedError("its meta/metadata is damaged")
        if not digested and values.get("digested"):
            raise DamagedError(f"its {digests.FILE} is missing")
        if not digested:
            _read_through(path / "state")
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{type(error).__name__}: {_reason(error)}") from error
    return values


def newest_meta(folder: Path) -> dict:
    """What was saved beside the newest state that is whole; empty where there is none."""
    for update in reversed(updates(folder)):
        with contextlib.suppress(DamagedError):
            return meta(folder, update)
    return {}


def prove(folder: Path) -> None:
    """Writes a small state below `folder` and reads it back, before anything depends on that.

    Raises:
      ConfigError: what is written there cannot be read.
      OSError: the disk refuses.
    """
    place = Path(tempfile.mkdtemp(prefix=digests.PROVING, dir=folder))
    state = {"x": jnp.arange(3.0)}
    try:
        checkpoints = Checkpoints(place / "checkpoints")
        checkpoints.save(1, state, {})
        checkpoints.check_written(1, state)
        checkpoints.close()
    except TrainingError as error:
        raise ConfigError(
            f"out={folder} cannot hold checkpoints ({error.__cause__ or error}); choose another "
            "folder."
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


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
            self._plain_path(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
            ),
        )

    def _plain_path(self):
        """The folder's path, or that of a link to it where Orbax would misread its characters."""
        path = self.folder.absolute()
        if _PLAIN.fullmatch(str(path)):
            return path
        path.mkdir(parents=True, exist_ok=True)
        place = tempfile.mkdtemp(prefix="lorasa_jax-")
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        link = Path(place, "checkpoints")
        link.symlink_to(path)
        return link

    def latest(self) -> int | None:
        """The newest checkpoint's update, or None."""
        return max(self.all(), default=None)

    def all(self) -> list[int]:
        """The updates that have a checkpoint, oldest first."""
        return updates(self.folder)

    def save(self, update: int, state: Any, meta: dict) -> None:
        """Writes a pytree of arrays and keys, and a dictionary beside it.

        Raises TrainingError where the disk refuses; earlier checkpoints are untouched.
        """
        if update == self.latest():
            return
        saved = ocp.args.StandardSave(_to_numpy(state))
        beside = ocp.args.JsonSave({**meta, "digested": True})
        try:
            self._manager.save(update, args=ocp.args.Composite(state=saved, meta=beside))
            self._manager.wait_until_finished()
            digests.write(self.folder / str(update), update)
        except (OSError, ValueError) as error:
            raise self._unwritten(update, error) from error

    def _unwritten(self, update, error):
        last = max((u for u in self.all() if u != update), default="none")
        return TrainingError(
            f"checkpoint {update} could not be written to {self.folder} ({_reason(error)}); "
            f"the last good one is {last}: free the disk and run the same command again."
        )

    def check_written(self, update: int, state: Any) -> None:
        """Reads a checkpoint back and compares it with the state that was saved, bit for bit.

        Raises:
          TrainingError: it cannot be read, or differs.
        """
        try:
            read = _to_numpy(self.read(update, lambda _: state)[1])
        except (DamagedError, UnfitError) as error:
            raise TrainingError(
                f"checkpoint {update} was written to {self.folder} and cannot be read back "
                f"({error}); choose another folder."
            ) from error
        pairs = zip(jax.tree.leaves(read), jax.tree.leaves(_to_numpy(state)), strict=True)
        if any(one.tobytes() != other.tobytes() for one, other in pairs):
            raise TrainingError(
                f"checkpoint {update} in {self.folder} is read back as another state than was "
                "written; choose another folder."
            )

    def read(
        self, update: int, like: Callable[[dict], Any], later: Mapping[str, Any] = NOTHING
    ) -> tuple[dict, Any]:
        """What was saved beside a state, and the state, both known to be what was written.

        like(meta): a state of the same shapes and types (never read). later: see `restore`.

        Raises:
          DamagedError: the checkpoint is not what was written, or another update's.
          UnfitError: it is whole, and of other shapes than `like`.
        """
        beside = meta(self.folder, update)
        shapes = like(beside)
        try:
            state = self.restore(update, shapes, later)
        except MemoryError:
            raise
        except Exception as error:  # whatever Orbax raises where shapes differ
            raise UnfitError(f"{type(error).__name__}: {_reason(error)}") from error
        if isinstance(state, tuple) and "update" in getattr(state, "_fields", ()):
            counted = int(np.asarray(getattr(state, "update")).reshape(-1)[0])  # noqa: B009
            if counted != update:
                raise DamagedError(f"it is that of update {counted}")
        return beside, state

    def set_aside(self, update: int) -> Path:
        """Renames a checkpoint so that it is none any more; returns where it lies then."""
        names = (f"damaged-{update}{'' if n == 1 else f'-{n}'}" for n in range(1, 10**6))
        place = next(self.folder / name for name in names if not (self.folder / name).exists())
        (self.folder / str(update)).rename(place)
        self._manager.reload()
        return place

    def restore(self, update: int, like: Any, later: Mapping[str, Any] = NOTHING) -> Any:
        """The state of `update`, unchecked; `like` is as a state of the same shapes and types.

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


def _read_through(folder: Path) -> None:
    """Reads all of a checkpoint's parts one by one; damage raises OSError or ValueError here.

    For checkpoints without a digest. Orbax reads the parts at once: where one fails, the others'
    threads print tracebacks afterwards.
    """
    json.loads((folder / "_METADATA").read_bytes())
    base = {"driver": "ocdbt", "base": folder.absolute().as_uri() + "/"}
    suffix = b"/.zarray"
    for key in tensorstore.KvStore.open(base).result().list().result():
        if key.endswith(suffix):
            path = key.removesuffix(suffix).decode() + "/"
            spec = {"driver": "zarr", "kvstore": {**base, "path": path}}
            tensorstore.open(spec, read=True).result().read().result()


def _reason(error):
    return " ".join(str(error).split())[:200]
