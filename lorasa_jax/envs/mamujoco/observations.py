"""Index maps from the physics to what each agent observes and drives.

Everything an agent sees is a gather from one source vector
[qpos | qvel | contact forces, 6 per body | 0]; the last entry serves as padding.
"""

from typing import NamedTuple

import numpy as np

from lorasa_jax.envs.mamujoco.partitions import Partition
from lorasa_jax.envs.mamujoco.robots import Robot


class Source(NamedTuple):
    """Where each part of the source vector begins; `size` counts the padding entry."""

    qvel: int
    contacts: int
    zero: int
    size: int


def source(robot: Robot) -> Source:
    contacts = robot.nq + robot.nv
    zero = contacts + 6 * robot.nbody
    return Source(qvel=robot.nq, contacts=contacts, zero=zero, size=zero + 1)


def observation_index(partition: Partition, k: int = 1) -> np.ndarray:
    """[agent, width]: the source entries of every agent's local observation.

    Its own joints come first, sorted by name, with position, velocity and the contact forces of
    their bodies (each body once); then, distance by distance up to `k`, the neighbours' joints,
    sorted by name, with position alone. Shorter agents are padded with zeros.
    """
    robot = partition.robot
    at = source(robot)
    rows = []
    for own in partition.agents:
        row, felt = [], set()
        for joint in sorted(own):
            info = robot.joints[joint]
            row += [info.qpos, at.qvel + info.qvel]
            for body in info.bodies if robot.observes_contacts else ():
                if body not in felt:
                    felt.add(body)
                    row += range(at.contacts + 6 * body, at.contacts + 6 * body + 6)
        seen = set(own)
        for _ in range(k):
            reached = {j for edge in robot.edges if seen.intersection(edge) for j in edge} - seen
            row += [robot.joints[joint].qpos for joint in sorted(reached)]
            seen |= reached
        rows.append(row)
    width = max(map(len, rows))
    return np.array([row + [at.zero] * (width - len(row)) for row in rows])


def state_index(robot: Robot) -> np.ndarray:
    """[width]: the source entries of the single-agent observation, which is the critic's view."""
    at = source(robot)
    contacts = range(at.contacts, at.zero) if robot.observes_contacts else ()
    return np.array([*range(robot.skipped_qpos, at.contacts), *contacts])


def action_index(partition: Partition, order: str) -> np.ndarray:
    """[agent, size]: the actuator behind each action; -1 where an agent has fewer than others.

    `node`: the actuator of the joint that the agent observes. `flat`: actions concatenated in
    agent order, as the authors' code and its ancestors do, so that agents drive other joints
    than those they observe.
    """
    motors = [[partition.robot.joints[joint].actuator for joint in own] for own in partition.agents]
    if order == "flat":
        counter = iter(range(sum(map(len, motors))))
        motors = [[next(counter) for _ in row] for row in motors]
    width = max(map(len, motors))
    return np.array([row + [-1] * (width - len(row)) for row in motors])
