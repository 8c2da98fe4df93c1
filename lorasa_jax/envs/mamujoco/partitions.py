"""Which joints each agent drives. A new partition is one entry here."""

from typing import NamedTuple

from lorasa_jax.envs.mamujoco.robots import ANT, Robot


class Partition(NamedTuple):
    """agents[i] lists agent i's joints in the order of its action."""

    robot: Robot
    agents: tuple[tuple[str, ...], ...]


def _ant_legs(*teams):
    return tuple(
        tuple(joint for leg in team for joint in (f"hip_{leg}", f"ankle_{leg}")) for team in teams
    )


PARTITIONS = {
    "ant_4x2": Partition(ANT, _ant_legs((1,), (2,), (3,), (4,))),
}
