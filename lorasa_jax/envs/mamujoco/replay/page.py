"""A recording as one HTML file that needs nothing else: data, style and program are inside."""

import base64
import json
from pathlib import Path

import numpy as np

from lorasa_jax.files import write_atomically

_TEMPLATE = Path(__file__).with_name("viewer.html")
_PLACE = "__RECORDING__"
_LARGEST = 32767  # of a 16-bit number


def write(path: Path, recording: dict) -> Path:
    """Writes a recording (`scene.record`) as a page, whole or not at all; returns its path."""
    path = Path(path)
    data = json.dumps(pack(recording), allow_nan=False, separators=(",", ":"))
    head, tail = _TEMPLATE.read_text(encoding="utf-8").split(_PLACE)
    write_atomically(path, head + data.replace("<", "\\u003c") + tail)
    return path


def pack(recording: dict) -> dict:
    """The recording as JSON.

    Planes become one level floor, and geoms fixed to the world have one pose. The others' poses
    are 16-bit numbers: positions as offsets from the robot's centre, in units of `scale` [3] (m),
    so that a long way costs no precision; quaternions in units of 1 / 32767. Binary data are
    little-endian, in base64.
    """
    fixed = np.asarray(recording["fixed"])
    quaternions, centre = recording["quaternions"], recording["centre"].astype(np.float32)
    offsets = recording["positions"][:, ~fixed] - centre[:, None]
    scale = np.abs(offsets).max((0, 1), initial=1e-6) / _LARGEST
    rewards = recording["rewards"]
    return {
        "title": recording["title"],
        "dt": recording["dt"],
        "view": recording["view"],
        "frames": len(centre),
        "radius": recording["radius"],
        "floor": _floor(recording),
        "geoms": [
            _geom(recording, i) for i, kind in enumerate(recording["types"]) if kind != "plane"
        ],
        "legend": [{**entry, "colour": _rounded(entry["colour"])} for entry in recording["legend"]],
        "returns": None if rewards is None else _rounded(np.cumsum(rewards)),
        "centre": _base64(centre, "<f4"),
        "scale": scale.tolist(),
        "offsets": _base64(np.rint(offsets / scale), "<i2"),
        "quaternions": _base64(np.rint(quaternions[:, ~fixed] * _LARGEST), "<i2"),
    }


def _floor(recording):
    """Height (m) of the floor, None without one; planes are drawn without end, at any size."""
    heights = []
    for i in np.flatnonzero(np.array(recording["types"]) == "plane"):
        upright = np.abs(recording["quaternions"][0, i, 1:3]).max() < 1e-3
        if not (upright and recording["fixed"][i]):
            raise ValueError(f"geom {i} is a plane that slopes or moves; a replay has level floors")
        heights.append(float(recording["positions"][0, i, 2]))
    return max(heights, default=None)


def _geom(recording, i):
    """A mesh of the page and how to stretch it: by `size` [3], then by `length` (m) either way."""
    a, b, c = _rounded(recording["sizes"][i])
    shape, size, length = {
        "sphere": ("capsule", [a, a, a], 0),
        "capsule": ("capsule", [a, a, a], b),
        "ellipsoid": ("capsule", [a, b, c], 0),
        "cylinder": ("cylinder", [a, a, b], 0),
        "box": ("box", [a, b, c], 0),
    }[recording["types"][i]]
    colour = _rounded(recording["colours"][i])
    geom = {"shape": shape, "size": size, "length": length, "colour": colour}
    if recording["fixed"][i]:
        geom["at"] = _rounded(recording["positions"][0, i])
        geom["turn"] = _rounded(recording["quaternions"][0, i])
    return geom


def _rounded(values):
    return [float(f"{value:.7g}") for value in values]


def _base64(values, dtype):
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
