"""A battle as an interactive page: one HTML file that needs nothing else."""

import json
from pathlib import Path

import numpy as np

from lorasa_jax.envs.smac import pictures
from lorasa_jax.envs.smac.page import PAGE
from lorasa_jax.envs.smac.simulation import Battle, BattleState


def write(battle: Battle, agents, states: BattleState, rewards, path: Path, *, title: str) -> Path:
    """Writes states [time + 1, ...] and rewards [time]; agents name the allies."""
    data = json.dumps(
        record(battle, agents, states, rewards, title), allow_nan=False, separators=(",", ":")
    )
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        page = PAGE.replace("__RECORDING__", data.replace("<", "\\u003c"))
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def record(battle: Battle, agents, states: BattleState, rewards, title: str) -> dict:
    """What the page is told: units, and per step and unit x, y, bars, and whom each acts on.

    Bars are -1 where a unit has none, acts -1 where it did nothing.
    """
    shares = pictures.bars(battle, states)
    units = battle.battle.units
    names = [*agents, *(f"enemy {unit.name}" for unit in units[len(agents) :])]
    shades = pictures.colours(battle)
    acts = np.where(states.unit_acted, states.unit_targets, -1)
    # The first state belongs to no step, and so has no reward.
    returns = np.concatenate([[0.0], np.cumsum(np.asarray(rewards, float))])
    return {
        "title": title,
        "map": {"low": battle.rules.low, "high": battle.rules.high},
        "seconds": battle.rules.dt * battle.rules.loops,
        "units": [
            {
                "name": names[i], "letter": unit.letter, "radius": unit.radius,
                "colour": shades[i], "healer": unit.healer, "air": unit.layer == "air",
            }
            for i, unit in enumerate(units)
        ],
        "allies": battle.num_allies,
        "returns": _numbers(returns),
        "x": _numbers(states.unit_positions[..., 0]),
        "y": _numbers(states.unit_positions[..., 1]),
        "alive": np.asarray(states.unit_alive, int).tolist(),
        "acts": np.asarray(acts, int).tolist(),
        **{name: _numbers(np.nan_to_num(share, nan=-1.0)) for name, share in shares.items()},
    }  # fmt: skip


def _numbers(values):
    return np.round(np.asarray(values, float), 3).tolist()
