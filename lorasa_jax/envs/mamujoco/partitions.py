"""Which joints each agent drives. A new partition is one entry here."""

import re
from typing import NamedTuple

from lorasa_jax.errors import ConfigError


class Partition(NamedTuple):
    """agents[i] lists agent i's joints in the order of its action; robot is a name in robots.py.

    full_observation: whether the paper shows every agent the whole state (profile `lorasa`).
    """

    robot: str
    agents: tuple[tuple[str, ...], ...]
    full_observation: bool = False


def _ant_legs(*teams):
    return tuple(
        tuple(joint for leg in team for joint in (f"hip_{leg}", f"ankle_{leg}")) for team in teams
    )


def _each(agents):
    return tuple((joint,) for agent in agents for joint in agent)


def _walker(agents):
    return tuple(tuple(f"{joint}_joint" for joint in agent) for agent in agents)


_LEGS_4 = _ant_legs((1,), (2,), (3,), (4,))
_CHEETAH_2 = (("bfoot", "bshin", "bthigh"), ("ffoot", "fshin", "fthigh"))
_WALKER_2 = _walker((("foot", "leg", "thigh"), ("foot_left", "leg_left", "thigh_left")))
_UPPER = (
    "left_shoulder1", "left_shoulder2", "abdomen_x", "abdomen_y", "abdomen_z",
    "right_shoulder1", "right_shoulder2", "right_elbow", "left_elbow",
)  # fmt: skip
_LOWER = (
    "left_hip_x", "left_hip_y", "left_hip_z", "right_hip_x", "right_hip_y", "right_hip_z",
    "right_knee", "left_knee",
)  # fmt: skip

PARTITIONS = {
    # The paper's.
    "halfcheetah_2x3": Partition("halfcheetah", _CHEETAH_2),
    "walker2d_3x2": Partition(
        "walker2d",
        _walker((("foot", "leg"), ("thigh", "foot_left"), ("leg_left", "thigh_left"))),
    ),
    "ant_4x2": Partition("ant", _LEGS_4),
    "humanoid_9_8": Partition("humanoid", (_UPPER, _LOWER), full_observation=True),
    "ant_2x4": Partition("ant", _ant_legs((1, 2), (3, 4))),
    "ant_8x1": Partition("ant", _each(_LEGS_4)),
    # The field's.
    "halfcheetah_6x1": Partition("halfcheetah", _each(_CHEETAH_2)),
    "halfcheetah_3x2": Partition(
        "halfcheetah", (("bfoot", "bshin"), ("bthigh", "ffoot"), ("fshin", "fthigh"))
    ),
    "walker2d_2x3": Partition("walker2d", _WALKER_2),
    "walker2d_6x1": Partition("walker2d", _each(_WALKER_2)),
    "ant_2x4d": Partition("ant", _ant_legs((1, 4), (2, 3))),  # legs that face each other
    "hopper_3x1": Partition("hopper", _each(_walker((("thigh", "leg", "foot"),)))),
    "humanoid_17x1": Partition("humanoid", _each((_UPPER, _LOWER))),
    "humanoid_standup_9_8": Partition("humanoid_standup", (_UPPER, _LOWER)),
    "swimmer_2x1": Partition("swimmer", (("motor1_rot",), ("motor2_rot",))),
    "reacher_2x1": Partition("reacher", (("joint0",), ("joint1",))),
}

# Any number of agents and segments: names of the form manyagent_ant_<agents>x<segments each>.
MANY = ("manyagent_ant_2x3", "manyagent_ant_3x2", "manyagent_swimmer_6x1", "manyagent_swimmer_10x2")
_PATTERN = re.compile(r"manyagent_(ant|swimmer)_([1-9]\d*)x([1-9]\d*)")
_MOST_SEGMENTS = 50


def canonical(name: str) -> str | None:
    """The registered spelling of an environment's name; None if it is not one of these."""
    name = name.replace("9|8", "9_8")
    return name if name in PARTITIONS or _PATTERN.fullmatch(name) else None


def partition(name: str) -> Partition:
    """The partition of a canonical name.

    Raises:
      ConfigError: a many-agent robot with fewer than 2 or more than 50 segments.
    """
    if name in PARTITIONS:
        return PARTITIONS[name]
    match = _PATTERN.fullmatch(name)
    assert match is not None  # the name is canonical
    kind, agents, each = match[1], int(match[2]), int(match[3])
    count = agents * each
    if not 2 <= count <= _MOST_SEGMENTS:
        raise ConfigError(
            f"env={name} has {count} segments in all; choose 2 to {_MOST_SEGMENTS} of them."
        )
    if kind == "ant":
        segments = [
            tuple(f"{part}_{i}" for part in ("hip1", "ankle1", "hip2", "ankle2"))
            for i in range(count)
        ]
    else:
        segments = [(f"rot{i}",) for i in range(count)]
    groups = (segments[i : i + each] for i in range(0, count, each))
    joined = tuple(tuple(joint for segment in group for joint in segment) for group in groups)
    return Partition(f"manyagent_{kind}_{count}", joined)


def check(partition_: Partition, joints: tuple[str, ...]) -> None:
    """Every joint of the robot is driven by exactly one agent.

    Raises:
      ConfigError: naming the first joint that is unknown, driven twice, or not at all; an agent
        without joints.
    """
    if not all(partition_.agents):
        raise ConfigError(f"an agent of {partition_.robot} drives no joint; give it one.")
    driven = [joint for agent in partition_.agents for joint in agent]
    for joint in driven:
        if joint not in joints:
            raise ConfigError(
                f"{joint} is no joint of {partition_.robot}; its joints are {', '.join(joints)}."
            )
        if driven.count(joint) > 1:
            raise ConfigError(f"{joint} is assigned twice; give every joint to one agent.")
    for joint in joints:
        if joint not in driven:
            raise ConfigError(f"{joint} is assigned to no agent; give every joint to one agent.")
