"""MuJoCo's C engine as a pure function inside jit, scan and vmap."""

import hashlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from lorasa_jax import machine
from lorasa_jax.envs.mamujoco import host_call
from lorasa_jax.envs.mamujoco.physics import PhysState, derived_shapes

_STATE = ("qpos", "qvel", "qacc_warmstart")


class NativeStepper:
    """Steps all environments of a (nested) vmap in one threaded call of the C engine.

    Equal to a loop over `mj_step` bit for bit in float64; in float32 the state is rounded once an
    environment step. The callback is a pure function of its argument, so that XLA may repeat,
    reorder or drop it. It uses numpy only: calling jax from a callback can deadlock.
    """

    name = "native"

    def __init__(
        self,
        model: mujoco.MjModel,
        frame_skip: int,
        derived: tuple[str, ...] = (),
        nthread: int = 0,
    ):
        # The engine would put a robot that blew up back into its rest pose, and training would go
        # on from a made-up state.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._model, self._frame_skip = model, frame_skip
        self._nthread = nthread or machine.cpus()
        self._shapes = derived_shapes(model, derived)
        self._widths = [math.prod(shape) for shape in self._shapes.values()]
        self._engines: dict[int, _BatchEngine | _ContactEngine] = {}
        self._lock = threading.Lock()

    def step(self, physics: PhysState, ctrl: jax.Array) -> tuple[PhysState, dict]:
        nq, nv = self._model.nq, self._model.nv
        packed = jnp.concatenate([physics.qpos, physics.qvel, physics.warmstart, ctrl], axis=-1)
        after = self._call(self._advance, packed, nq + 2 * nv + sum(self._widths))
        qpos, qvel, warmstart, derived = jnp.split(after, [nq, nq + nv, nq + 2 * nv], axis=-1)
        return PhysState(qpos, qvel, warmstart), self._unpack(derived)

    def forward(self, physics: PhysState) -> dict:
        packed = jnp.concatenate(physics, axis=-1)
        return self._unpack(self._call(self._evaluate, packed, sum(self._widths)))

    def _call(self, fill, packed, width):
        """fill(rows [robot, ...], out [robot, width]) from inside compiled code.

        On CPU it works on XLA's own buffers: a pure callback passes its arguments through the
        device first, which takes 40 microseconds. Its name there says all that it depends on.
        """
        result = jax.ShapeDtypeStruct((*packed.shape[:-1], width), packed.dtype)
        if jax.default_backend() == "cpu":
            name = f"lorasa_jax_{fill.__name__}_{self._digest()}"
            return host_call.call(
                name, lambda packed, out: fill(_rows(packed), _rows(out)), result, packed
            )

        def on_host(packed):
            packed = np.asarray(packed)
            out = np.empty((*packed.shape[:-1], width), packed.dtype)
            fill(_rows(packed), _rows(out))
            return out

        return jax.pure_callback(on_host, result, packed, vmap_method="broadcast_all")

    def _digest(self):
        """A word for the model and for what is computed of it."""
        model = np.empty(mujoco.mj_sizeModel(self._model), np.uint8)
        mujoco.mj_saveModel(self._model, None, model)
        what = f"{mujoco.__version__} {self._frame_skip} {sorted(self._shapes.items())}"
        return hashlib.sha256(model.tobytes() + what.encode()).hexdigest()[:16]

    def _unpack(self, derived):
        parts = jnp.split(derived, np.cumsum(self._widths)[:-1], axis=-1) if self._widths else ()
        return {
            name: part.reshape(*part.shape[:-1], *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def _advance(self, rows, out):
        nq, nv = self._model.nq, self._model.nv
        with self._lock:
            engine = self._load(rows)
            engine.fields["ctrl"][:] = rows[:, nq + 2 * nv :]
            engine.step(self._frame_skip)
            self._store(engine, out, (*_STATE, *self._shapes))

    def _evaluate(self, rows, out):
        with self._lock:
            engine = self._load(rows)
            engine.fields["ctrl"][:] = 0.0
            engine.forward()
            self._store(engine, out, tuple(self._shapes))

    def _load(self, rows):
        engine = self._engine(len(rows))
        first = 0
        for name in _STATE:
            field = engine.fields[name]
            field[:] = rows[:, first : first + field.shape[1]]
            first += field.shape[1]
        return engine

    @staticmethod
    def _store(engine, out, names):
        first = 0
        for name in names:
            field = engine.fields[name]
            width = math.prod(field.shape[1:])
            out[:, first : first + width] = field.reshape(len(out), width)
            first += width

    def _engine(self, size):
        if size not in self._engines:
            kind = _ContactEngine if "cfrc_ext" in self._shapes else _BatchEngine
            self._engines[size] = kind(self._model, size, self._nthread, tuple(self._shapes))
        return self._engines[size]


def _rows(x):
    """[..., width] as [robot, width], the same memory."""
    return x.reshape(-1, x.shape[-1])


class _BatchEngine:
    """`size` robots in MuJoCo's own thread pool; `fields` are live arrays [size, ...]."""

    def __init__(self, model, size, nthread, derived):
        self._batch = Batch(model, size, nthread)
        names = (*_STATE, "ctrl", *derived)
        self.fields: dict[str, np.ndarray] = {name: self._batch.bind(name) for name in names}

    def step(self, count):
        self._batch.step(nstep=count)

    def forward(self):
        self._batch.forward()


class _ContactEngine:
    """The same with contact forces after every step, which MuJoCo's batch does not compute.

    `mj_step` leaves them out unless a sensor asks; Gymnasium calls `mj_rnePostConstraint` for
    them, and so does this. Threads take equal shares of the robots.
    """

    def __init__(self, model, size, nthread, derived):
        threads = min(nthread, size)
        self._model, self._derived = model, derived
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._shares = np.array_split(np.arange(size), threads)
        self._pool = ThreadPoolExecutor(threads)
        self.fields: dict[str, np.ndarray] = {
            name: np.zeros((size, *getattr(self._data[0], name).shape))
            for name in (*_STATE, "ctrl", *derived)
        }

    def step(self, count):
        def advance(data):
            mujoco.mj_step(self._model, data, count)
            mujoco.mj_rnePostConstraint(self._model, data)

        self._each(advance, (*_STATE, *self._derived))

    def forward(self):
        def evaluate(data):
            data.cfrc_ext[:] = 0.0
            mujoco.mj_forward(self._model, data)

        self._each(evaluate, self._derived)

    def _each(self, run, results):
        def share(data, rows):
            for row in rows:
                for name in (*_STATE, "ctrl"):
                    getattr(data, name)[:] = self.fields[name][row]
                run(data)
                for name in results:
                    self.fields[name][row] = getattr(data, name)

        list(self._pool.map(share, self._data, self._shares))
