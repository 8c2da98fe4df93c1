"""Presets: sets of numbers by name, as data with their sources; `preset=paper` is paper.py alone.

`authors` is the authors' code where it differs from the paper; `tuned` is what is known to work on
the task. A row holds for environments and algorithms that match its patterns; of several rows a
later one wins, and any key that is given wins over all of them.
"""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from lorasa_jax.errors import ConfigError

NAMES = ("paper", "authors", "tuned")


class Row(NamedTuple):
    """Keys of the configuration for (environment, algorithm) patterns, and where they come from."""

    env: str
    algo: str
    keys: dict[str, Any]
    source: str


MUJOCO = (
    "halfcheetah_*", "walker2d_*", "ant_*", "humanoid_*", "hopper_*", "swimmer_*", "reacher_*",
    "manyagent_*",
)  # fmt: skip
MAPS = ("smac_*", "smax_*")


def _rows(envs, algo, keys, source):
    return tuple(Row(env, algo, keys, source) for env in envs)


_CODE = "the authors' code (github.com/ZBN111/ICML2025_LoRASA, e27889f)"
AUTHORS = (
    *_rows(
        MUJOCO, "*",
        {
            "network.log_std": "vector", "env.action_order": "flat", "env.standardise": True,
            "algo.truncation": "authors",
        },
        f"{_CODE}: distributions.py, mujoco_multi.py, shared_buffer.py",
    ),
    *_rows(MAPS, "*", {"algo.truncation": "terminal"}, f"{_CODE}: no proper time limits on maps"),
    Row("*", "a2po", {"algo.refresh": "step", "algo.others_clip": 0.1}, f"{_CODE}: r_mappo.py"),
    *_rows(MUJOCO, "a2po", {"algo.trace": "running"}, f"{_CODE}: speedup_trace in its scripts"),
    Row("halfcheetah_*", "a2po", {"algo.trace": "squared"}, f"{_CODE}: no speedup_trace"),
    *_rows(
        MAPS, "a2po",
        {
            "algo.trace": "squared", "algo.clip_schedule": "tight",
            "algo.trace_others": "preceding",
        },
        f"{_CODE}: the ppo loop of r_mappo.py",
    ),
)  # fmt: skip

_HARL = "HARL's tuned MAPPO (github.com/PKU-MARL/HARL, d539bad)"
_A2PO = "the A2PO repository (github.com/xihuai18/A2PO-ICLR2023, c953380)"
_JAXMARL = "JaxMARL's mappo_homogenous_rnn_smax (github.com/FLAIROx/JaxMARL, c793d09)"
_THIRD = {"total_steps": 10_000_000, "switch_at": 3_332_000}
TUNED = (
    *_rows(
        MUJOCO, "*",
        {
            "env.full_observation": True, "network.kind": "ff", "network.depth": 2,
            "network.hidden": 128, "network.log_std": "vector", "critic_sharing": "ps",
            "algo.num_envs": 20, "algo.rollout_length": 200, "algo.epochs": 5, "algo.clip": 0.1,
            "algo.actor_lr": 5e-4, "algo.critic_lr": 5e-4, "algo.entropy_coef": 0.0,
            "algo.gae_lambda": 0.95, "algo.ratio": "joint", **_THIRD,
        },
        f"{_HARL}: what its MuJoCo tasks have in common",
    ),
    Row(
        "halfcheetah_*", "*",
        {"algo.clip": 0.05, "algo.epochs": 15, "algo.entropy_coef": 0.01},
        f"{_HARL}: HalfCheetah 2x3",
    ),
    Row(
        "walker2d_*", "*",
        {
            "algo.clip": 0.05, "algo.actor_lr": 1e-3, "algo.critic_lr": 1e-3,
            "algo.minibatches": 2, "algo.lr_decay": "linear",
        },
        f"{_HARL}: Walker2d 2x3",
    ),
    Row(
        "walker2d_6x1", "*",
        {
            "algo.clip": 0.1, "algo.actor_lr": 5e-4, "algo.critic_lr": 5e-4,
            "algo.minibatches": 1, "algo.lr_decay": "none", "algo.entropy_coef": 0.01,
        },
        f"{_HARL}: Walker2d 6x1",
    ),
    Row(
        "hopper_*", "*",
        {"algo.clip": 0.05, "algo.epochs": 10, "algo.lr_decay": "linear"},
        f"{_HARL}: Hopper 3x1",
    ),
    Row("humanoid_*", "*", {"algo.lr_decay": "linear"}, f"{_HARL}: Humanoid 17x1"),
    *_rows(
        MUJOCO, "a2po",
        {
            "network.kind": "gru", "network.depth": 3, "network.hidden": 64,
            "algo.num_envs": 25, "algo.rollout_length": 160, "algo.epochs": 5, "algo.clip": 0.2,
            "algo.actor_lr": 3e-4, "algo.critic_lr": 3e-4, "algo.gae_lambda": 0.93,
            "algo.minibatches": 1, "algo.lr_decay": "none", "algo.entropy_coef": 0.0,
        },
        f"{_A2PO}: its MuJoCo scripts",
    ),
    Row("ant_*", "a2po", {"algo.epochs": 8}, f"{_A2PO}: Ant"),
    Row("humanoid_*", "a2po", {"algo.gae_lambda": 0.9}, f"{_A2PO}: Humanoid"),
    *_rows(
        MAPS, "*",
        {
            "network.hidden": 128, "network.depth": 1, "network.layer_norm": False,
            "algo.num_envs": 128, "algo.rollout_length": 128, "algo.chunk_length": 128,
            "algo.epochs": 4, "algo.minibatches": 4, "algo.clip": 0.2, "algo.actor_lr": 2e-3,
            "algo.critic_lr": 2e-3, "algo.lr_decay": "linear", "algo.entropy_coef": 0.0,
            "algo.gae_lambda": 0.95, "algo.max_grad_norm": 0.25,
            "total_steps": 9_994_240, "switch_at": 3_325_952,
        },
        _JAXMARL,
    ),
    Row("smax_*", "*", {"env.max_steps": 100, "env.state": "upstream"}, _JAXMARL),
)  # fmt: skip

TABLES: dict[str, tuple[Row, ...]] = {"paper": (), "authors": AUTHORS, "tuned": TUNED}


def rows(preset: str, env: str, algo: str) -> tuple[Row, ...]:
    """The rows of a preset for an environment and an algorithm, the strongest last.

    Raises:
      ConfigError: the preset has nothing to say of this environment.
    """
    matches = tuple(
        row for row in TABLES[preset] if fnmatchcase(env, row.env) and fnmatchcase(algo, row.algo)
    )
    if preset != "paper" and not any(row.env != "*" for row in matches):
        raise ConfigError(
            f"preset={preset} has no numbers for env={env}; choose preset=paper and give keys, or "
            "an environment of multi-agent MuJoCo or StarCraft's maps."
        )
    return matches


def numbers(preset: str, env: str, algo: str) -> dict[str, Any]:
    """The keys of a preset for an environment and an algorithm, with their values."""
    return {key: value for row in rows(preset, env, algo) for key, value in row.keys.items()}
