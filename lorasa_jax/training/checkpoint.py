"""A run's saved state, kept by Orbax so that a failure at any moment does not lose it.

A checkpoint is one folder named after its update. Orbax writes it beside the others and renames
it when it is complete; the last two and the ends of phases are kept. Its digest is written last,
and checked whenever the checkpoint is read.
"""

import contextlib
import errno
import json
import logging
import os
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

from lorasa_jax import hosts
from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.training import digests, stored_form
from lorasa_jax.training.stored_form import to_numpy

# Orbax reports its every step as a warning or info through absl's logger.
logging.getLogger("absl").setLevel(logging.ERROR)
NOTHING = MappingProxyType({})
ROOM = 2**20  # bytes of disk for what describes a checkpoint, beside its arrays
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
    place = Path(hosts.led(lambda: tempfile.mkdtemp(prefix=digests.PROVING, dir=folder)))
    if hosts.any_(not place.is_dir()):
        raise ConfigError(f"out={folder} is not one folder that all hosts see; choose another.")
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
        if hosts.leads():
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
        arrays = to_numpy(state)
        saved = ocp.args.StandardSave(arrays)
        beside = ocp.args.JsonSave({**meta, "digested": True})
        try:
            hosts.led(lambda: _require_room(self.folder, arrays))
            self._manager.save(update, args=ocp.args.Composite(state=saved, meta=beside))
            self._manager.wait_until_finished()
            hosts.led(lambda: digests.write(self.folder / str(update), update))
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
            read = to_numpy(self.read(update, lambda _: state)[1])
        except (DamagedError, UnfitError) as error:
            raise TrainingError(
                f"checkpoint {update} was written to {self.folder} and cannot be read back "
                f"({error}); choose another folder."
            ) from error
        pairs = zip(jax.tree.leaves(read), jax.tree.leaves(to_numpy(state)), strict=True)
        if hosts.any_(any(_differ(one, other) for one, other in pairs)):
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
        hosts.meet()  # nobody reads it any more
        hosts.led(lambda: (self.folder / str(update)).rename(place) and None)
        self._manager.reload()
        return place

    def restore(self, update: int, like: Any, later: Mapping[str, Any] = NOTHING) -> Any:
        """The state of `update`, unchecked; `like` is as a state of the same shapes and types.

        later: {field of `like`: value}; entries of that field, a dictionary, which a checkpoint of
        an earlier version lacks, get this value.
        """
        present, abstract = self._present(update), stored_form.abstract(like)
        new = {
            name: {
                key: np.full_like(x, value)
                for key, x in getattr(abstract, name).items()
                if (name, key) not in present
            }
            for name, value in later.items()
        }
        asked = {
            name: {key: x for key, x in getattr(abstract, name).items() if key not in entries}
            for name, entries in new.items()
        }
        requested = abstract._replace(**asked) if later else abstract
        arguments = ocp.args.StandardRestore(stored_form.storable(requested))
        saved = self._manager.restore(update, args=ocp.args.Composite(state=arguments))["state"]
        saved = stored_form.with_none(requested, saved)
        for name, entries in new.items():
            saved = saved._replace(**{name: {**getattr(saved, name), **entries}})
        return jax.tree.map(stored_form.restored, like, saved)

    def _present(self, update):
        """The paths of a checkpoint's arrays."""
        path = self.folder / str(update) / "state" / "_METADATA"
        arrays = json.loads(path.read_text())["tree_metadata"].values()
        return {tuple(key["key"] for key in array["key_metadata"]) for array in arrays}

    def close(self) -> None:
        self._manager.close()


def _differ(whole, array):
    """Whether what this process has of an array is other than that part of the whole."""
    if hosts.is_here(array):
        return whole.tobytes() != array.tobytes()
    shards = array.addressable_shards
    return any(whole[x.index].tobytes() != np.asarray(x.data).tobytes() for x in shards)


def _require_room(folder, arrays):
    """Refuses to begin a write for which the disk has no room.

    Where Orbax's own threads meet a full disk they print tracebacks, and go on after that.
    """
    needed = ROOM + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
