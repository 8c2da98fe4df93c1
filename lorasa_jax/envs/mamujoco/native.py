"""MuJoCo's C engine as a pure function inside jit, scan and vmap."""

import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco.batch import Batch

from lorasa_jax.envs.mamujoco.physics import PhysState


class NativeStepper:
    """Steps all environments of a (nested) vmap in one threaded call of the C engine.

    Equal to a loop over `mj_step` bit for bit in float64; in float32 the state is rounded once an
    environment step. The callback is a pure function of its argument, so that XLA may repeat,
    reorder or drop it. It uses numpy only: calling jax from a callback can deadlock.
    """

    def __init__(self, model: mujoco.MjModel, frame_skip: int, torso: int, nthread: int = 0):
        # The engine would put a robot that blew up back into its rest pose, and training would go
        # on from a made-up state.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self._model, self._frame_skip, self._torso, self._nthread = (
            model,
            frame_skip,
            torso,
            nthread,
        )
        self._batches: dict[int, tuple] = {}
        self._lock = threading.Lock()

    def step(self, physics: PhysState, ctrl: jax.Array) -> PhysState:
        nq, nv = self._model.nq, self._model.nv
        packed = jnp.concatenate([physics.qpos, physics.qvel, physics.warmstart, ctrl], axis=-1)
        after = jax.pure_callback(
            self._advance,
            jax.ShapeDtypeStruct((nq + 2 * nv + 1,), packed.dtype),
            packed,
            vmap_method="broadcast_all",
        )
        qpos, qvel, warmstart, torso_x = jnp.split(after, [nq, nq + nv, nq + 2 * nv], axis=-1)
        return PhysState(qpos, qvel, warmstart, torso_x[..., 0])

    def _advance(self, packed):
        packed = np.asarray(packed)
        rows = packed.reshape(-1, packed.shape[-1])
        nq, nv = self._model.nq, self._model.nv
        with self._lock:
            batch, qpos, qvel, warmstart, ctrl, xpos = self._batch(len(rows))
            qpos[:] = rows[:, :nq]
            qvel[:] = rows[:, nq : nq + nv]
            warmstart[:] = rows[:, nq + nv : nq + 2 * nv]
            ctrl[:] = rows[:, nq + 2 * nv :]
            batch.step(nstep=self._frame_skip)
            after = np.empty((len(rows), nq + 2 * nv + 1), packed.dtype)
            after[:, :nq] = qpos
            after[:, nq : nq + nv] = qvel
            after[:, nq + nv : -1] = warmstart
            after[:, -1] = xpos[:, self._torso, 0]
        return after.reshape(*packed.shape[:-1], -1)

    def _batch(self, size):
        if size not in self._batches:
            batch = Batch(self._model, size, self._nthread)
            fields = ("qpos", "qvel", "qacc_warmstart", "ctrl", "xpos")
            self._batches[size] = (batch, *map(batch.bind, fields))
        return self._batches[size]
