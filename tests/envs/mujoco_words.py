"""Labels in words for every number a robot can show, from its model's own names."""

import mujoco
import numpy as np

_SHORT = {
    "qpos": "qp",
    "qvel": "qv",
    "qfrc_actuator": "qf",
    "cinert": "ci",
    "cvel": "cv",
    "cfrc_ext": "cf",
}
_REACHER = ["cos joint0", "cos joint1", "sin joint0", "sin joint1", "tip x", "tip y", "tip z"]


def source_words(source) -> np.ndarray:
    """The source vector of a robot, entry by entry."""
    words = []
    for field, size in source.sizes.items():
        entries = _REACHER if field == "extra" else field_words(source.model, field)
        assert len(entries) == size
        words += entries
    return np.array([*words, "0"], dtype=object)


def field_words(model, field) -> list[str]:
    short = _SHORT[field]
    if field in ("cinert", "cvel", "cfrc_ext"):
        width = getattr(mujoco.MjData(model), field).shape[1]
        return [
            f"{short} {body_name(model, b)} {i}" for b in range(model.nbody) for i in range(width)
        ]
    words = []
    for i in range(model.njnt):
        joint = model.joint(i)
        free = joint.type[0] == mujoco.mjtJoint.mjJNT_FREE
        count = (7 if field == "qpos" else 6) if free else 1
        words += [f"{short} {joint.name} {n}" if free else f"{short} {joint.name}"
                  for n in range(count)]  # fmt: skip
    return words


def body_name(model, body) -> str:
    """Its name; else the joint that moves it; else the joint that its child turns."""
    name, joints = model.body(body).name, model.body_jntnum[body]
    if name:
        return name
    if joints:
        return f"at {model.joint(model.body_jntadr[body]).name}"
    (child,) = np.flatnonzero(model.body_parentid == body)
    return f"before {model.joint(model.body_jntadr[child]).name}"


def motor_words(model, action_index) -> list[list[str]]:
    """The joints that each agent's actions turn; padding left out."""
    return [[model.joint(model.actuator_trnid[i, 0]).name for i in row if i >= 0]
            for row in action_index]  # fmt: skip


# --- expected lists --------------------------------------------------------------------------


def pos(*joints):
    return [f"qp {joint}" for joint in joints]


def both(*joints):
    return [word for joint in joints for word in (f"qp {joint}", f"qv {joint}")]


def forces(*bodies):
    return [f"cf {body} {i}" for body in bodies for i in range(6)]


def numbered(data: mujoco.MjData) -> mujoco.MjData:
    """Writes another number below 1 into every entry; bounds on observations leave them alone."""
    count = 0
    for field in (*_SHORT, "xpos", "xipos"):
        values = getattr(data, field)
        values[:] = (1.0 + count + np.arange(values.size).reshape(values.shape)) / 4096
        count += values.size
    assert count < 4096
    return data
