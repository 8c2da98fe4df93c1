"""The robots as data: body, reward terms, health, reset noise, joint graph.

Numbers of the `v2` tasks of Gym 0.21, which the paper ran: Ant-v2's reward is the torso's
velocity along x plus 1 for being alive minus half the squared action; it ends when the torso
leaves 0.2 m ... 1.0 m.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Joint(NamedTuple):
    """A hinge: its place in qpos and qvel, its motor, the bodies whose contacts it feels."""

    qpos: int
    qvel: int
    actuator: int
    bodies: tuple[int, ...]


@dataclass(frozen=True)
class Robot:
    """One body and its single-agent task.

    xml and sha256 name the model file inside the installed gymnasium package. Rewards are per
    environment step of `frame_skip` physics steps: forward_weight x (m/s along x)
    + healthy_reward - control_weight x squared action. healthy_z bounds qpos[2] in metres.
    Reset adds uniform noise of half-width reset_qpos to qpos and reset_qvel x N(0, 1) to qvel.
    The joint graph is `joints` and `edges`: joints on one edge are neighbours.
    """

    xml: str
    sha256: str
    frame_skip: int
    nq: int
    nv: int
    nbody: int
    torso: int
    forward_weight: float
    control_weight: float
    healthy_reward: float
    healthy_z: tuple[float, float]
    reset_qpos: float
    reset_qvel: float
    skipped_qpos: int
    observes_contacts: bool
    joints: dict[str, Joint]
    edges: tuple[tuple[str, ...], ...]


def _ant_joints() -> dict[str, Joint]:
    joints = {}
    motors = {1: 2, 2: 4, 3: 6, 4: 0}  # actuators begin with leg 4
    for leg, motor in motors.items():
        upper = 3 * leg - 1
        first = 2 * (leg - 1)
        joints[f"hip_{leg}"] = Joint(7 + first, 6 + first, motor, (1, upper))
        joints[f"ankle_{leg}"] = Joint(
            8 + first, 7 + first, motor + 1, (upper, upper + 1, upper + 2)
        )
    return joints


ANT = Robot(
    xml="ant.xml",
    sha256="cd5f83ef",
    frame_skip=5,
    nq=15,
    nv=14,
    nbody=14,
    torso=1,
    forward_weight=1.0,
    control_weight=0.5,
    healthy_reward=1.0,
    healthy_z=(0.2, 1.0),
    reset_qpos=0.1,
    reset_qvel=0.1,
    skipped_qpos=2,
    observes_contacts=True,
    joints=_ant_joints(),
    edges=(
        *((f"hip_{leg}", f"ankle_{leg}") for leg in (1, 2, 3, 4)),
        ("hip_1", "hip_2", "hip_3", "hip_4"),
    ),
)
