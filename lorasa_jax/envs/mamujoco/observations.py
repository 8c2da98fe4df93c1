"""Index maps from the physics to what each agent observes and drives.

Everything an agent sees is a gather from one source vector: the robot's fields, flattened one
after the other, and a last entry 0 that serves as padding.
"""

from typing import NamedTuple

import mujoco
import numpy as np

from lorasa_jax.envs.mamujoco.partitions import Partition
from lorasa_jax.envs.mamujoco.robots import Robot, Span
from lorasa_jax.errors import ConfigError

_WIDTH = {"cinert": 10, "cvel": 6, "cfrc_ext": 6}  # entries per body


class View(NamedTuple):
    """index into the source vector, and per entry the bound of its absolute value."""

    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]  # hides tuple.index
    bound: np.ndarray


class Source:
    """Where each field of a robot begins in its source vector; `size` counts the padding entry."""

    def __init__(self, robot: Robot, model: mujoco.MjModel):
        self.robot, self.model = robot, model
        sizes = {
            "qpos": model.nq,
            "qvel": model.nv,
            "qfrc_actuator": model.nv,
            **{name: width * model.nbody for name, width in _WIDTH.items()},
        }
        seen = {span.field for span in robot.state} | set(robot.local)
        self.fields = tuple(f for f in sizes if f in seen or f in ("qpos", "qvel"))
        sizes["extra"] = 7 if robot.extras else 0
        if robot.extras:
            self.fields += ("extra",)
        self.sizes = {name: sizes[name] for name in self.fields}
        ends = np.cumsum([*self.sizes.values()])
        self.begins = dict(zip(self.fields, [0, *ends[:-1]], strict=True))
        self.zero = int(ends[-1])
        self.size = self.zero + 1

    def entries(self, span: Span) -> list[int]:
        stop = self.sizes[span.field] if span.stop is None else span.stop
        return [int(self.begins[span.field]) + i for i in range(span.start, stop)]

    def joint(self, joint: str, category: str) -> list[int]:
        """What a joint shows in a category, its bodies' fields apart."""
        replaced = self.robot.sees.get(joint, {}).get(category)
        if replaced is not None:
            return [entry for span in replaced for entry in self.entries(span)]
        address = self.model.joint(joint)
        at = address.qposadr[0] if category == "qpos" else address.dofadr[0]
        return [int(self.begins[category] + at)]

    def body(self, body: int, category: str) -> list[int]:
        width = _WIDTH[category]
        return self.entries(Span(category, width * body, width * (body + 1)))

    def bounds(self, index: np.ndarray, limits: dict[str, float]) -> np.ndarray:
        bound = np.full(self.size, np.inf)
        for name, limit in limits.items():
            if name in self.fields:
                bound[self.entries(Span(name))] = limit
        return bound[index]


def distances(robot: Robot, joints: tuple[str, ...]) -> list[list[str]]:
    """Joints by distance from `own` in the joint graph, each distance sorted by name."""
    rings, seen = [sorted(joints)], set(joints)
    while True:
        reached = {j for edge in robot.edges if seen.intersection(edge) for j in edge} - seen
        if not reached:
            return rings
        rings.append(sorted(reached))
        seen |= reached


def observation_view(
    source: Source, partition: Partition, k: int | None = None, categories: tuple[str, ...] = ()
) -> View:
    """[agent, width]: the source entries of every agent's local observation.

    Its own joints come first, sorted by name, with all local categories (each body once); then,
    distance by distance up to `k` (by default 1), the neighbours' joints with position alone; then
    the global `categories` of the root. Shorter agents are padded with zeros.

    Raises:
      ConfigError: k below 0 or beyond the joint graph.
    """
    robot = source.robot
    furthest = max(len(distances(robot, joints)) - 1 for joints in partition.agents)
    k = min(1, furthest) if k is None else k
    if not 0 <= k <= furthest:
        raise ConfigError(
            f"env.k={k} is out of range; in this joint graph it goes from 0 to {furthest}."
        )
    rows = []
    for joints in partition.agents:
        row, felt = [], set()
        for joint in sorted(joints):
            for category in robot.local:
                if category not in _WIDTH:
                    row += source.joint(joint, category)
                    continue
                for body in robot.felt.get(joint, ()):
                    if (category, body) not in felt:
                        felt.add((category, body))
                        row += source.body(body, category)
        for ring in distances(robot, joints)[1 : k + 1]:
            for joint in ring:
                row += source.joint(joint, "qpos")
        for category in categories:
            for span in robot.root.get(category, ()):
                row += source.entries(span)
        rows.append(row)
    width = max(map(len, rows))
    index = np.array([row + [source.zero] * (width - len(row)) for row in rows])
    return View(index, source.bounds(index, robot.clip_obs))


def state_view(source: Source) -> View:
    """[width]: the source entries of the single-agent observation, which is the critic's view."""
    index = np.array([entry for span in source.robot.state for entry in source.entries(span)])
    return View(index, source.bounds(index, source.robot.clip_state))


def action_index(partition: Partition, model: mujoco.MjModel, order: str) -> np.ndarray:
    """[agent, size]: the actuator behind each action; -1 where an agent has fewer than others.

    `node`: the actuator of the joint that the agent observes. `flat`: actions concatenated in
    agent order, as the authors' code and its ancestors do, so that agents drive other joints
    than those they observe.
    """
    turns = {model.joint(int(model.actuator_trnid[i, 0])).name: i for i in range(model.nu)}
    motors = [[turns[joint] for joint in joints] for joints in partition.agents]
    if order == "flat":
        counter = iter(range(model.nu))
        motors = [[next(counter) for _ in row] for row in motors]
    width = max(map(len, motors))
    return np.array([row + [-1] * (width - len(row)) for row in motors])
