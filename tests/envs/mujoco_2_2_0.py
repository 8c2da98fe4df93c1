"""Makes mujoco_2_2_0.npz, what test_mamujoco_legacy.py compares with: steps of MuJoCo 2.2.0 itself.

MuJoCo 2.2.0 is the oldest release on PyPI and stands in for the paper's 2.1.0. It has wheels for
Python 3.7 to 3.10 only, so that this script runs in an environment of its own, next to the one
that lorasa_jax is installed in; it needs nothing but mujoco and numpy:

    python3.10 -m venv legacy && legacy/bin/pip install mujoco==2.2.0 "numpy<2"
    legacy/bin/python tests/envs/mujoco_2_2_0.py ASSETS tests/envs/mujoco_2_2_0.npz

ASSETS is the folder gymnasium/envs/mujoco/assets of the installed gymnasium. Per robot the file
holds contact-rich states and torques, and the state one environment step later.
"""

import sys
from pathlib import Path

import mujoco
import numpy as np

# Model file, physics steps per environment step, torque limit, spread of the start pose.
ROBOTS = {
    "halfcheetah": ("half_cheetah.xml", 5, 1.0, 0.3),
    "walker2d": ("walker2d.xml", 4, 1.0, 0.3),
    "ant": ("ant.xml", 5, 1.0, 0.1),
    "humanoid": ("humanoid.xml", 5, 0.4, 0.1),
}
STATES = 100


def harvest(model, frame_skip, limit, spread, rng):
    """Rows (qpos, qvel, warm start, torque) out of random play, each in contact with something."""
    data, rows = mujoco.MjData(model), []
    while len(rows) < STATES:
        mujoco.mj_resetData(model, data)
        data.qpos[:] += rng.uniform(-spread, spread, model.nq)
        if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE:
            data.qpos[3:7] /= np.linalg.norm(data.qpos[3:7])
        data.qvel[:] = 0.5 * rng.standard_normal(model.nv)
        for _ in range(40):
            data.ctrl[:] = rng.uniform(-limit, limit, model.nu)
            mujoco.mj_step(model, data, frame_skip)
            if data.ncon and rng.random() < 0.15:
                torque = rng.uniform(-limit, limit, model.nu)
                state = (data.qpos, data.qvel, data.qacc_warmstart, torque)
                rows.append([part.copy() for part in state])
    return [np.stack(column) for column in zip(*rows[:STATES])]  # noqa: B905 (old Python)


def main(assets, out):
    if mujoco.__version__ != "2.2.0":
        sys.exit("mujoco_2_2_0: this is mujoco %s; install 2.2.0." % mujoco.__version__)  # noqa: UP031
    arrays = {}
    for seed, (name, (xml, frame_skip, limit, spread)) in enumerate(ROBOTS.items()):
        model = mujoco.MjModel.from_xml_path(str(Path(assets) / xml))
        rng = np.random.default_rng(seed)
        qpos, qvel, warmstart, ctrl = harvest(model, frame_skip, limit, spread, rng)
        after = []
        data = mujoco.MjData(model)
        for row in range(STATES):
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = qpos[row], qvel[row]
            data.qacc_warmstart[:], data.ctrl[:] = warmstart[row], ctrl[row]
            mujoco.mj_step(model, data, frame_skip)
            after.append((data.qpos.copy(), data.qvel.copy()))
        next_qpos, next_qvel = map(np.stack, zip(*after))  # noqa: B905 (old Python)
        columns = dict(
            qpos=qpos, qvel=qvel, warmstart=warmstart, ctrl=ctrl,
            next_qpos=next_qpos, next_qvel=next_qvel,
        )  # fmt: skip
        arrays.update({f"{name}/{key}": value for key, value in columns.items()})
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("mujoco_2_2_0: give the folder of model files and the file to write.")
    main(*sys.argv[1:])
