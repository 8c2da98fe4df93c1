"""A battle as an interactive page: one HTML file that needs nothing else."""

import json
from pathlib import Path

import numpy as np

from lorasa_jax.envs.smac import pictures
from lorasa_jax.envs.smac.page import PAGE
from lorasa_jax.envs.smac.scene import Scene
from lorasa_jax.files import write_atomically


def write(scene: Scene, rewards, path: Path, *, title: str) -> Path:
    """Writes a scene of [time + 1] states and its rewards [time]."""
    data = json.dumps(record(scene, rewards, title), allow_nan=False, separators=(",", ":"))
    write_atomically(path, PAGE.replace("__RECORDING__", data.replace("<", "\\u003c")))
    return path


def record(scene: Scene, rewards, title: str) -> dict:
    """The page's data: units, and per step and unit x, y, bars, and whom each acts on.

    Bars are -1 where a unit has none, acts -1 where it did nothing.
    """
    enemies = scene.units[scene.num_allies :]
    names = [*scene.agents, *(f"enemy {unit.name}" for unit in enemies)]
    shades = pictures.colours(scene)
    # The first state belongs to no step, and so has no reward.
    returns = np.concatenate([[0.0], np.cumsum(np.asarray(rewards, float))])
    return {
        "title": title,
        "map": {"low": scene.low, "high": scene.high},
        "seconds": scene.seconds,
        "units": [
            {
                "name": names[i], "letter": unit.letter, "radius": unit.radius,
                "colour": shades[i], "healer": unit.healer, "air": unit.layer == "air",
            }
            for i, unit in enumerate(scene.units)
        ],
        "allies": scene.num_allies,
        "returns": _numbers(returns),
        "x": _numbers(scene.places[..., 0]),
        "y": _numbers(scene.places[..., 1]),
        "alive": np.asarray(scene.alive, int).tolist(),
        "acts": np.asarray(scene.acts, int).tolist(),
        **{
            name: _numbers(np.nan_to_num(getattr(scene, name), nan=-1.0))
            for name in ("health", "shields", "energy")
        },
    }  # fmt: skip


def _numbers(values):
    return np.round(np.asarray(values, float), 3).tolist()
