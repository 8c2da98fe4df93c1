"""Policies that lorasa_jax exported, loaded and run with numpy and safetensors alone.

A copy of this file lies in every export that it can read; nothing else is needed to use one:

    from policy import load
    policy = load(FOLDER)
    carry = policy.initial_carry(batch)
    carry, action = policy.act(obs, carry, first, legal)
"""

import hashlib
import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as tensors_of

CARD = "policy.json"
# Tensors of an observation's running statistics, where a policy sees it normalised, and the limit.
NORMALISE, OBSERVATION_CLIP = "normalise", 10.0
FORMAT_VERSION = 1
MOST_JSON, MOST_TENSORS = 2**22, 2**36  # bytes that are read at most
ADAPTER_CONFIG, ADAPTER_MODEL = "adapter_config.json", "adapter_model.safetensors"
# PEFT's own prefix of every tensor of an adapter, and the tensors that hold our parts, transposed.
PREFIX = "base_model.model."
TENSORS = {
    "a": "lora_A.weight", "b": "lora_B.weight", "full": "delta.weight", "scale": "delta.weight",
    "bias": "delta.bias", "offset": "delta",
}  # fmt: skip

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Policy:
    """A team's policy: what policy.json says, and of every agent the weights by name."""

    card: dict[str, Any]
    weights: tuple[Weights, ...]

    def initial_carry(self, *shape: int) -> np.ndarray:
        """Zeros [*shape, agent, carry]: the recurrent state at the start of an episode."""
        size = self.card["network"]["carry_size"]
        return np.zeros((*shape, len(self.weights), size), np.float32)

    def outputs(self, obs, carry, first) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The next carry, and the networks' outputs {name: [..., agent, features]}, of one step.

        obs [..., agent, features] and carry [..., agent, carry] are float32; where first [...]
        is true an episode begins, and the carry is zeroed before the step. The outputs are
        `logits`, or `mean` and `log_std` s of a Gaussian of standard deviation
        m + (0.5 - m) sigmoid(s), m being the card's `std_min`, whose tanh is the action.

        Raises:
          ValueError: obs or carry is of another shape.
        """
        obs, carry = np.asarray(obs, np.float32), np.asarray(carry, np.float32)
        first, network = np.asarray(first, bool), self.card["network"]
        for name, x, size in (
            ("obs", obs, self.card["observation_size"]),
            ("carry", carry, network["carry_size"]),
        ):
            if x.shape != (*first.shape, len(self.weights), size):
                raise ValueError(
                    f"{name} {list(x.shape)} must be [..., {len(self.weights)} agents, {size}], "
                    f"with first {list(first.shape)} in front."
                )
        steps = [
            forward(network, weights, carry[..., i, :], obs[..., i, :], first)
            for i, weights in enumerate(self.weights)
        ]
        outputs = {name: np.stack([out[name] for _, out in steps], -2) for name in steps[0][1]}
        return np.stack([carry for carry, _ in steps], -2), outputs

    def act(self, obs, carry, first, legal=None) -> tuple[np.ndarray, np.ndarray]:
        """The next carry, and every agent's best action, as the environment takes it.

        obs, carry and first as for `outputs`. legal [..., agent, actions] marks the actions that
        may be chosen, by default all. Discrete actions are [..., agent] integers, continuous
        ones [..., agent, size] in [-1, 1].
        """
        carry, outputs = self.outputs(obs, carry, first)
        if self.card["action"]["kind"] == "continuous":
            return carry, np.tanh(outputs["mean"])
        logits = outputs["logits"]
        if legal is not None:
            logits = np.where(legal, logits, np.float32(-1e10))
        return carry, logits.argmax(-1)


def load(folder: str | Path) -> Policy:
    """The policy of a safetensors export.

    Raises:
      ValueError: in one sentence, if the folder holds none, or one that is not whole.
    """
    folder = Path(folder)
    card = read_card(folder, "safetensors")
    weights = tuple(read_tensors(folder, agent) for agent in card["agents"])
    for agent, tensors in zip(card["agents"], weights, strict=True):
        shapes = {name: list(x.shape) for name, x in tensors.items()}
        if shapes != card["parameters"]:
            raise ValueError(f"{folder / agent['file']} holds other weights than {CARD} says.")
    return Policy(card, weights)


def with_adapters(policy: Policy, folder: str | Path) -> Policy:
    """The policy with the agents' exported adapters put onto its weights, their backbones.

    Raises:
      ValueError: as `load` and `load_adapters`.
    """
    folder = Path(folder)
    agents = read_card(folder, "adapters")["agents"]
    if len(agents) != len(policy.weights):
        raise ValueError(f"{folder} is for {len(agents)} agents, not {len(policy.weights)}.")
    merged = [
        load_adapters((folder / agent["file"]).parent, weights)
        for agent, weights in zip(agents, policy.weights, strict=True)
    ]
    return replace(policy, weights=tuple(merged))


def load_adapters(folder: str | Path, weights: Weights, *, any_backbone: bool = False) -> Weights:
    """One agent's weights with its adapter on them: W + (lora_alpha / r) A B, and offsets.

    With `use_rslora` it is lora_alpha / sqrt(r). folder: one agent's, with adapter_config.json.
    weights: the backbone's {name: array}, as in a safetensors export of the checkpoint that the
    configuration names; any_backbone: take others.

    Raises:
      ValueError: the adapter is not whole, does not fit the weights, or is of another backbone.
    """
    config, adapters = read_adapter(folder)
    if not any_backbone and digest(weights) != config["lorasa_jax"]["backbone_sha256"]:
        raise ValueError(
            f"{folder} was trained on another backbone, {config['base_model_name_or_path']}."
        )
    merged = dict(weights)
    for layer, parts in adapters.items():
        changes = dict(parts)
        if "a" in parts:
            rank = config["rank_pattern"].get(layer, config["r"])
            alpha = config["alpha_pattern"].get(layer, config["lora_alpha"])
            divisor = rank**0.5 if config.get("use_rslora") else rank
            product = changes.pop("a") @ changes.pop("b")
            changes["kernel"] = np.float32(alpha / divisor) * product
        elif "full" in parts:
            changes["kernel"] = changes.pop("full")
        for part, change in changes.items():
            name = layer if part == "offset" else f"{layer}.{part}"
            if name not in weights or weights[name].shape != change.shape:
                raise ValueError(f"{folder} does not fit these weights: {name} differs.")
            merged[name] = weights[name] + change
    return merged


def read_adapter(folder: str | Path) -> tuple[dict[str, Any], dict[str, Weights]]:
    """One agent's adapter: its configuration, and {layer: parts} in lorasa_jax's own layout.

    Parts are a [in, r] and b [r, out], or full [in, out]; bias, scale (of a LayerNorm) and offset
    (of a free vector) are added to what the backbone has. On disk they are PEFT's tensors
    `lora_A` [r, in] and `lora_B` [out, r], of a full matrix one of them the identity, and beyond
    PEFT's words `delta`, laid out as PyTorch's `weight` and `bias`.

    Raises:
      ValueError: a file is missing or not whole.
    """
    folder = Path(folder)
    config = _json(folder / ADAPTER_CONFIG)
    missing = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "lorasa_jax"} - set(config)
    if missing:
        raise ValueError(f"{folder / ADAPTER_CONFIG} is not of lorasa_jax: no {min(missing)}.")
    stored = {"file": ADAPTER_MODEL, "sha256": config["lorasa_jax"].get("sha256")}
    adapters: dict[str, Weights] = {}
    for name, x in read_tensors(folder, stored).items():
        layer, part = _part_of(name.removeprefix(PREFIX), x)
        adapters.setdefault(layer, {})[part] = x.T
    for layer in config["lorasa_jax"].get("full_modules", ()):
        parts = adapters.get(layer, {})
        if {"a", "b"} <= set(parts):  # a full matrix and an identity, the smaller of the two
            a, b = parts.pop("a"), parts.pop("b")
            parts["full"] = b if a.shape[0] < b.shape[1] else a
    return config, adapters


def _part_of(name, x):
    layer, _, kind = name.partition(".")
    parts = [part for part, tensor in TENSORS.items() if tensor == kind]
    if not parts:
        raise ValueError(f"{name} is no tensor of an adapter.")
    return layer, parts[0 if x.ndim == 2 else -1]


def forward(network, weights: Weights, carry, x, first) -> tuple[np.ndarray, dict]:
    """One agent's next carry and outputs, from carry [..., carry], x [..., features], first."""

    def linear(layer, x):
        return x @ weights[f"{layer}.kernel"] + weights[f"{layer}.bias"]

    def normed(number, x):
        if not network["layer_norm"]:
            return x
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        standard = centred / np.sqrt(variance + np.float32(network["epsilon"]))
        return standard * weights[f"norm_{number}.scale"] + weights[f"norm_{number}.bias"]

    if f"{NORMALISE}.mean" in weights:
        x = (x - weights[f"{NORMALISE}.mean"]) * weights[f"{NORMALISE}.scale"]
        x = np.clip(x, -OBSERVATION_CLIP, OBSERVATION_CLIP)
    for i in range(1, network["depth"] + 1):
        x = np.maximum(linear(f"linear_{i}", normed(i, x)), 0)
    kind = network["kind"]
    if kind in CELLS:
        gates = linear(f"{kind}_x_4", normed(4, x))
        carry = np.where(first[..., None], np.float32(0), carry)
        carry, x = CELLS[kind](carry, gates, lambda hidden: linear(f"{kind}_h_5", hidden))
    x = normed(7, np.maximum(linear("linear_6", normed(6, x)), 0))
    outputs = {output: linear(layer, x) for output, layer in network["heads"].items()}
    for vector in network["vectors"]:
        outputs[vector] = np.broadcast_to(weights[vector], (*x.shape[:-1], len(weights[vector])))
    return carry, outputs


def _gru(hidden, gates, recurrent):
    reset_x, update_x, new_x = np.split(gates, 3, axis=-1)
    reset_h, update_h, new_h = np.split(recurrent(hidden), 3, axis=-1)
    update = _sigmoid(update_x + update_h)
    new = np.tanh(new_x + _sigmoid(reset_x + reset_h) * new_h)
    hidden = (1 - update) * new + update * hidden
    return hidden, hidden


def _lstm(carry, gates, recurrent):
    hidden, cell = np.split(carry, 2, axis=-1)
    enter, forget, new, leave = np.split(gates + recurrent(hidden), 4, axis=-1)
    cell = _sigmoid(forget) * cell + _sigmoid(enter) * np.tanh(new)
    hidden = _sigmoid(leave) * np.tanh(cell)
    return np.concatenate([hidden, cell], axis=-1), hidden


def _sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2  # never overflows


CELLS = {"gru": _gru, "lstm": _lstm}


def read_card(folder: Path, kind: str) -> dict[str, Any]:
    """What policy.json says of an export of format `kind`; ValueError if it is of another one."""
    path = folder / CARD
    card = _json(path)
    version = card.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of format version {version}, and this reader knows {FORMAT_VERSION}; "
            "use the lorasa_jax that wrote it, or export again."
        )
    if card.get("format") != kind:
        raise ValueError(f"{folder} holds an export of format {card.get('format')}, not {kind}.")
    required = {"agents", "parameters", "network", "action", "observation_size", "env", "run"}
    if not required <= set(card):
        raise ValueError(f"{path} is not whole (it lacks {min(required - set(card))}).")
    # Exports from before these could vary lack them.
    card["network"] = {"depth": 3, "layer_norm": True, **card["network"]}
    return card


def read_tensors(folder: Path, stored: dict[str, str]) -> Weights:
    """The tensors of a file {file, sha256} of an export; ValueError if it is not as written."""
    path = folder / _inside(stored["file"])
    try:
        data = _bytes(path, MOST_TENSORS)
        tensors = tensors_of(data)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or "it is no whole safetensors file"
        raise ValueError(f"{path} cannot be read ({reason}); export again.") from error
    if hashlib.sha256(data).hexdigest() != stored["sha256"]:
        raise ValueError(f"{path} has changed since it was exported; export again.")
    # Policies may be stored in half precision; they compute in single.
    return {name: x.astype(np.float32, copy=False) for name, x in tensors.items()}


def digest(weights: Weights) -> str:
    """A fingerprint of weights, by which an adapter knows its backbone."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        x = np.ascontiguousarray(weights[name], np.float32)
        hasher.update(f"{name}{list(x.shape)}".encode() + x.tobytes())
    return hasher.hexdigest()


def _json(path):
    try:
        contents = json.loads(_bytes(path, MOST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no whole JSON file"
        raise ValueError(f"{path} cannot be read ({reason}).") from error
    if not isinstance(contents, dict):
        raise ValueError(f"{path} cannot be read (it is no whole JSON file).")
    return contents


def _inside(name):
    """A file's name, which may not lead out of its folder."""
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{CARD} names the file {name!r}, which is not in its folder.")
    return name


def _bytes(path, most):
    """A plain file of at most `most` bytes; a pipe or a device, which may never end, is refused."""
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise OSError(0, f"it is no plain file of at most {most:,} bytes", str(path))
        return file.read()
