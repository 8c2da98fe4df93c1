"""The least memory that a run or an evaluation takes, known before anything is compiled.

A lower bound, so that nothing is refused that could have run: networks with their optimisers, an
update's observations, and an evaluation's, all in single precision.
"""

import os
from pathlib import Path

import jax

from lorasa_jax.config import Config
from lorasa_jax.errors import ConfigError

_BYTES, _CGROUP = 4, Path("/sys/fs/cgroup/memory.max")
_GATES = {"gru": 3, "lstm": 4, "ff": 0}
_COPIES = 3  # of what is trained: itself and Adam's two moments


def available() -> int:
    """Bytes of memory that arrays may take here: of the device, or of this machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(physical, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no such limit
        return physical


def check(config: Config, env) -> None:
    """Refuses a run that cannot fit into memory.

    Raises:
      ConfigError: with the estimate, and the keys that it follows from.
    """
    algo, hidden = config.algo, config.network.hidden
    networks = sum(
        _network(config.network, size) for size in (env.observation_size, env.state_size)
    )
    seen = env.num_agents * env.observation_size
    parts = {
        f"networks (network.hidden={hidden})": _COPIES * networks,
        f"an update (algo.num_envs={algo.num_envs}, algo.rollout_length={algo.rollout_length})": (
            config.batch * seen
        ),
        f"an evaluation (eval_episodes={config.eval_episodes})": (
            config.eval_episodes * (seen + _carried(config.network, env))
        ),
    }
    limit = available() * config.devices
    _refuse(
        {what: count * _BYTES * config.num_seeds for what, count in parts.items()},
        f" for num_seeds={config.num_seeds}" if config.num_seeds > 1 else "", limit,
    )  # fmt: skip


def check_episodes(policy, episodes: int) -> None:
    """Refuses more episodes side by side than fit into memory.

    Raises:
      ConfigError: with the estimate.
    """
    env, network = policy.team.env, policy.team.actor.network
    numbers = env.num_agents * (env.observation_size + network.carry_size)
    _refuse({f"episodes={episodes}": episodes * numbers * _BYTES}, "", available())


def _refuse(parts, whose, limit):
    total = sum(parts.values())
    if total > limit:
        listed = ", ".join(f"{what} {_size(count)}" for what, count in parts.items())
        raise ConfigError(
            f"at least {_size(total)} of memory would be needed{whose} ({listed}), and there are "
            f"{_size(limit)}; give less of what takes most."
        )


def _network(network, features):
    """The least number of parameters of a network that sees `features`."""
    square = network.hidden**2
    return network.hidden * features + square * (network.depth + 2 * _GATES[network.kind])


def _carried(network, env):
    return env.num_agents * network.hidden * (_GATES[network.kind] > 0)


def _size(count):
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
