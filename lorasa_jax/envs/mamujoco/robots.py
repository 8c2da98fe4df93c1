"""The robots as data: body, reward, health, reset noise, joint graph, what is observed.

Profile `lorasa`: the `v2` tasks of Gym 0.21 under MuJoCo 2.x, which the paper ran (contact forces
are zero there, and the survival bonus is paid on the last step too). Profile `gymnasium`: the
`v5` tasks, observed as Gymnasium-Robotics' `mamujoco_v1` does. A robot is one entry in `_v2`, and
its differences under `v5` one entry in `_v5`.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from lorasa_jax.envs.mamujoco import segments
from lorasa_jax.envs.mamujoco.rewards import Contact, Control, Distance, Forward, Height, Survive


class Span(NamedTuple):
    """Entries start ... stop of a field of the physics, flattened; stop None is its end."""

    field: str
    start: int = 0
    stop: int | None = None


class Bound(NamedTuple):
    """The robot is healthy while all these entries lie between low and high."""

    span: Span
    low: float
    high: float
    strict: bool = True


class Reset(NamedTuple):
    """Noise around the rest pose: +-qpos uniform; qvel uniform, or `normal` with that deviation."""

    qpos: float
    qvel: float
    normal: bool = False


@dataclass(frozen=True)
class Robot:
    """One body and its single-agent task.

    xml and sha256 name a model file of the installed gymnasium package; `build` makes a model
    instead. measure names what `Forward` and `Distance` look at (environment.MEASURES).
    edges is the joint graph: joints on one edge are neighbours. felt[joint] are the body ids that
    the joint feels in cinert, cvel and cfrc_ext; sees[joint][category] replaces what it shows.
    local are the categories of an agent's own joints; root[category] the global information.
    clip_obs and clip_state bound fields in local observations and in the state.
    contact_forces: whether they are computed; otherwise they are observed as zeros.
    """

    name: str
    frame_skip: int
    measure: str
    rewards: tuple
    reset: Reset
    state: tuple[Span, ...]
    edges: tuple[tuple[str, ...], ...]
    root: dict[str, tuple[Span, ...]]
    xml: str = ""
    sha256: str = ""
    build: Callable[[], mujoco.MjModel] | None = None
    health: tuple[Bound, ...] = ()
    local: tuple[str, ...] = ("qpos", "qvel")
    felt: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sees: dict[str, dict[str, tuple[Span, ...]]] = field(default_factory=dict)
    clip_obs: dict[str, float] = field(default_factory=dict)
    clip_state: dict[str, float] = field(default_factory=dict)
    extras: Callable | None = None
    place: Callable | None = None
    free_root: bool = False
    unit_quaternion: bool = True
    halve_margins: bool = True
    contact_forces: bool = False
    max_steps: int = 1000

    @property
    def joints(self) -> tuple[str, ...]:
        """All driven joints, sorted."""
        return tuple(sorted({joint for edge in self.edges for joint in edge}))


def robot(name: str, profile: str) -> Robot:
    """The robot under a profile."""
    base = _v2(name)
    if profile == "lorasa":
        return base
    changes = {"halve_margins": False, "unit_quaternion": False, **_v5(base)}
    rewards = changes.pop("rewards", base.rewards)
    rewards = tuple(
        term._replace(always=False) if isinstance(term, Survive) and base.health else term
        for term in rewards
    )
    return replace(base, rewards=rewards, **changes)


def _v2(name: str) -> Robot:
    if name.startswith("manyagent_"):
        kind, count = name.removeprefix("manyagent_").split("_")
        return _MANY[kind](int(count))
    return _V2[name]


def _v5(robot_: Robot) -> dict:
    if robot_.name.startswith("manyagent_ant"):
        return _ant_v5(robot_)
    return _V5.get(robot_.name, lambda _: {})(robot_)


# --- planar robots -------------------------------------------------------------------------

_PLANAR_STATE = (Span("qpos", 1), Span("qvel"))
_PLANAR_ROOT = {"qpos": (Span("qpos", 1, 3),), "qvel": (Span("qvel", 0, 3),)}


def _chain(*joints):
    return tuple(itertools.pairwise(joints))


_HALFCHEETAH = Robot(
    name="halfcheetah",
    xml="half_cheetah.xml",
    sha256="11797a5d",
    frame_skip=5,
    measure="root",
    rewards=(Forward(1.0), Control(0.1)),
    reset=Reset(0.1, 0.1, normal=True),
    state=_PLANAR_STATE,
    edges=_chain("bfoot", "bshin", "bthigh", "fthigh", "fshin", "ffoot"),
    root=_PLANAR_ROOT,
)

_WALKER2D = Robot(
    name="walker2d",
    xml="walker2d.xml",
    sha256="ac13373c",
    frame_skip=4,
    measure="root",
    rewards=(Forward(1.0), Survive(1.0), Control(1e-3)),
    health=(Bound(Span("qpos", 1, 2), 0.8, 2.0), Bound(Span("qpos", 2, 3), -1.0, 1.0)),
    reset=Reset(0.005, 0.005),
    state=_PLANAR_STATE,
    clip_state={"qvel": 10.0},
    edges=_chain(
        "foot_joint", "leg_joint", "thigh_joint",
        "thigh_left_joint", "leg_left_joint", "foot_left_joint",
    ),
    root=_PLANAR_ROOT,
)  # fmt: skip

_HOPPER = Robot(
    name="hopper",
    xml="hopper.xml",
    sha256="3ce93a05",
    frame_skip=4,
    measure="root",
    rewards=(Forward(1.0), Survive(1.0), Control(1e-3)),
    health=(
        Bound(Span("qpos", 1, 2), 0.7, jnp.inf),
        Bound(Span("qpos", 2, 3), -0.2, 0.2),
        Bound(Span("qpos", 2), -100.0, 100.0),
        Bound(Span("qvel"), -100.0, 100.0),
    ),
    reset=Reset(0.005, 0.005),
    state=_PLANAR_STATE,
    clip_obs={"qvel": 10.0},
    clip_state={"qvel": 10.0},
    edges=_chain("thigh_joint", "leg_joint", "foot_joint"),
    root=_PLANAR_ROOT,
)

_SWIMMER = Robot(
    name="swimmer",
    xml="swimmer.xml",
    sha256="25b0d46b",
    frame_skip=4,
    measure="root",
    rewards=(Forward(1.0), Control(1e-4)),
    reset=Reset(0.1, 0.1),
    state=(Span("qpos", 2), Span("qvel")),
    edges=_chain("motor1_rot", "motor2_rot"),
    root={"qpos": (Span("qpos", 2, 3),), "qvel": (Span("qvel", 2, 3),)},
)


def _swimmer_v5(_):
    """The reference shows each joint a velocity of the root beside its own."""
    velocities = {
        "motor1_rot": (Span("qvel", 0, 1), Span("qvel", 3, 4)),
        "motor2_rot": (Span("qvel", 1, 2), Span("qvel", 4, 5)),
    }
    return {"sees": {joint: {"qvel": spans} for joint, spans in velocities.items()}}


# --- reacher -------------------------------------------------------------------------------


def _reacher_extras(qpos, derived):
    """cos and sin of both joints, and the vector (m) from the target to the fingertip."""
    angles = qpos[:2]
    tip = derived["xpos"][3] - derived["xpos"][4]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), tip])


def _reacher_place(key, qpos, qvel):
    """The target, uniform on a disc of 0.2 m, at rest."""
    radius, angle = jax.random.uniform(key, (2,))
    radius, angle = 0.2 * jnp.sqrt(radius), 2 * jnp.pi * angle
    target = radius * jnp.array([jnp.cos(angle), jnp.sin(angle)])
    return qpos.at[2:].set(target), qvel.at[2:].set(0.0)


_REACHER = Robot(
    name="reacher",
    xml="reacher.xml",
    sha256="3fabc64f",
    frame_skip=2,
    measure="reach",
    rewards=(Distance(after=False), Control(1.0)),
    reset=Reset(0.1, 0.005),
    place=_reacher_place,
    extras=_reacher_extras,
    state=(Span("extra", 0, 4), Span("qpos", 2), Span("qvel", 0, 2), Span("extra", 4, 7)),
    local=("qpos", "qvel", "fingertip"),
    sees={
        "joint0": {"qpos": (Span("extra", 2, 3), Span("extra", 0, 1)), "fingertip": ()},
        "joint1": {
            "qpos": (Span("extra", 3, 4), Span("extra", 1, 2)),
            "fingertip": (Span("extra", 4, 7),),
        },
    },
    edges=(("joint0", "joint1"),),
    root={"qpos": (Span("qpos", 2, 4),), "qvel": ()},
    max_steps=50,
)


def _reacher_v5(robot_):
    return {
        "rewards": (Distance(after=True), Control(1.0)),
        "state": (*robot_.state[:3], Span("extra", 4, 6)),
    }


# --- ants ----------------------------------------------------------------------------------

_FREE_ROOT = {"qpos": (Span("qpos", 2, 7),), "qvel": (Span("qvel", 0, 6),)}
_ANT_HEALTH = (Bound(Span("qpos", 2, 3), 0.2, 1.0, strict=False),)
_LEGS = (1, 2, 3, 4)

_ANT = Robot(
    name="ant",
    xml="ant.xml",
    sha256="cd5f83ef",
    frame_skip=5,
    measure="torso",
    rewards=(Forward(1.0), Survive(1.0), Control(0.5)),
    health=_ANT_HEALTH,
    reset=Reset(0.1, 0.1, normal=True),
    state=(Span("qpos", 2), Span("qvel"), Span("cfrc_ext")),
    clip_obs={"cfrc_ext": 1.0},
    clip_state={"cfrc_ext": 1.0},
    local=("qpos", "qvel", "cfrc_ext"),
    felt={
        **{f"hip_{leg}": (1, 3 * leg - 1) for leg in _LEGS},
        **{f"ankle_{leg}": (3 * leg - 1, 3 * leg, 3 * leg + 1) for leg in _LEGS},
    },
    edges=(
        *((f"hip_{leg}", f"ankle_{leg}") for leg in _LEGS),
        tuple(f"hip_{leg}" for leg in _LEGS),
    ),
    root=_FREE_ROOT,
    free_root=True,
)


def _ant_v5(robot_):
    """Real contact forces; the world's row is not part of the state."""
    return {
        "contact_forces": True,
        "rewards": (*robot_.rewards, Contact(5e-4, entry=1.0)),
        "state": (Span("qpos", 2), Span("qvel"), Span("cfrc_ext", 6)),
    }


def _manyagent_ant(count: int) -> Robot:
    """`count` two-legged segments in a row (MaMuJoCo); neighbours share an edge of four hips."""
    felt, edges = {}, []
    for i in range(count):
        first = 1 + 7 * i
        felt |= {
            f"hip1_{i}": (first, first + 1),
            f"ankle1_{i}": (first + 1, first + 2, first + 3),
            f"hip2_{i}": (first, first + 4),
            f"ankle2_{i}": (first + 4, first + 5, first + 6),
        }
        edges += [(f"hip1_{i}", f"ankle1_{i}"), (f"hip2_{i}", f"ankle2_{i}")]
        edges.append((f"hip1_{i}", f"hip2_{i}"))
        if i:
            edges.append((f"hip1_{i - 1}", f"hip2_{i - 1}", f"hip1_{i}", f"hip2_{i}"))
    return replace(
        _ANT,
        name=f"manyagent_ant_{count}",
        xml="",
        sha256="",
        build=lambda: segments.ant(count),
        felt=felt,
        edges=tuple(edges),
    )


def _manyagent_swimmer(count: int) -> Robot:
    """A swimmer with `count` driven joints in a row (MaMuJoCo)."""
    joints = [f"rot{i}" for i in range(count)]
    return replace(
        _SWIMMER,
        name=f"manyagent_swimmer_{count}",
        xml="",
        sha256="",
        build=lambda: segments.swimmer(count),
        edges=_chain(*joints) or ((joints[0],),),
        root={},
    )


_MANY = {"ant": _manyagent_ant, "swimmer": _manyagent_swimmer}

# --- humanoids -----------------------------------------------------------------------------

_ABDOMEN = ("abdomen_x", "abdomen_y", "abdomen_z")
_HUMANOID_STATE = tuple(Span(f) for f in ("cinert", "cvel", "qfrc_actuator", "cfrc_ext"))


def _humanoid_edges():
    edges = [_ABDOMEN]
    for side in ("left", "right"):
        hips = tuple(f"{side}_hip_{axis}" for axis in "xyz")
        shoulders = (f"{side}_shoulder1", f"{side}_shoulder2")
        edges += [hips, (f"{side}_knee", *hips), (f"{side}_elbow", *shoulders)]
        edges += [(*shoulders, *_ABDOMEN), (*_ABDOMEN, *hips)]
    return tuple(edges)


_HUMANOID = Robot(
    name="humanoid",
    xml="humanoid.xml",
    sha256="85816f37",
    frame_skip=5,
    measure="com",
    rewards=(Forward(1.25), Survive(5.0), Control(0.1)),
    health=(Bound(Span("qpos", 2, 3), 1.0, 2.0, strict=False),),
    reset=Reset(0.01, 0.01),
    state=(Span("qpos", 2), Span("qvel"), *_HUMANOID_STATE),
    local=("qpos", "qvel", "cfrc_ext", "cvel", "cinert", "qfrc_actuator"),
    edges=_humanoid_edges(),
    root=_FREE_ROOT,
    free_root=True,
)

_STANDUP = replace(
    _HUMANOID,
    name="humanoid_standup",
    xml="humanoidstandup.xml",
    sha256="9f72a3c4",
    measure="root",
    rewards=(Height(1.0), Control(0.1), Survive(1.0)),
    health=(),
)

_HUMANOID_FELT = {
    **dict.fromkeys(("abdomen_y", "abdomen_z"), (1, 2, 3)),
    "abdomen_x": (3, 4, 7),
    **{f"right_hip_{axis}": (4, 5) for axis in "xyz"},
    "right_knee": (5, 6),
    **{f"left_hip_{axis}": (7, 8) for axis in "xyz"},
    "left_knee": (8, 9),
    **dict.fromkeys(("right_shoulder1", "right_shoulder2"), (1, 10, 11)),
    "right_elbow": (11,),
    **dict.fromkeys(("left_shoulder1", "left_shoulder2"), (1, 12, 13)),
    "left_elbow": (13,),
}


def _humanoid_v5(robot_):
    """The reference's bodies per joint; its abdomen's y and z carry each other's numbers."""
    swapped = {}
    for joint, index in (("abdomen_y", 0), ("abdomen_z", 1)):
        velocity = Span("qvel", 6 + index, 7 + index)
        swapped[joint] = {
            "qpos": (Span("qpos", 7 + index, 8 + index),),
            "qvel": (velocity,),
            "qfrc_actuator": (velocity._replace(field="qfrc_actuator"),),
        }
    return {
        "contact_forces": True,
        "rewards": (*robot_.rewards, Contact(5e-7, most=10.0)),
        "health": tuple(bound._replace(strict=True) for bound in robot_.health),
        "state": (
            Span("qpos", 2), Span("qvel"), Span("cinert", 10), Span("cvel", 6),
            Span("qfrc_actuator", 6), Span("cfrc_ext", 6),
        ),
        "local": ("qpos", "qvel", "cinert", "cvel", "qfrc_actuator", "cfrc_ext"),
        "felt": _HUMANOID_FELT,
        "sees": swapped,
    }  # fmt: skip


_V2 = {
    entry.name: entry
    for entry in (
        _HALFCHEETAH, _WALKER2D, _HOPPER, _SWIMMER, _REACHER, _ANT, _HUMANOID, _STANDUP,
    )
}  # fmt: skip

_V5 = {
    "walker2d": lambda _: {"xml": "walker2d_v5.xml", "sha256": "6bed53a6"},
    "swimmer": _swimmer_v5,
    "reacher": _reacher_v5,
    "ant": _ant_v5,
    "humanoid": _humanoid_v5,
    "humanoid_standup": _humanoid_v5,
}
