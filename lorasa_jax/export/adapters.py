"""Adapters alone, one folder an agent in PEFT's layout and words."""

import json
from pathlib import Path

import jax
import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.export import tensors as whole
from lorasa_jax.export.policy import ADAPTER_CONFIG, ADAPTER_MODEL, CARD, PREFIX, TENSORS, digest
from lorasa_jax.export.source import card, file_stems, named, normaliser
from lorasa_jax.export.tensors import copy_reader, store
from lorasa_jax.learn.finished import Policy
from lorasa_jax.policy.networks import layer_of
from lorasa_jax.sharing import entry_of
from lorasa_jax.training import reporting

BACKBONE = "backbone"
USE = (
    "policy.py: policy = with_adapters(load(FOLDER/backbone), FOLDER), or for one agent "
    "weights = load_adapters(AGENT'S FOLDER, the backbone's weights)"
)
_FORMS = ("lora", "factored", "svd")  # all products A B
_BIAS = {"none": "none", "lora": "lora_only", "all": "all"}


def write(folder: Path, policy: Policy) -> list[dict]:
    """Writes <agent>/adapter_config.json and adapter_model.safetensors, policy.py, and backbone.

    The folder `backbone` is a safetensors export of the network under every agent. Returns each
    agent's {file, sha256}.

    Raises:
      ConfigError: the run has no adapters, or not yet, or they are of another kind than lora.
    """
    spec = policy.config.lora_spec()
    if spec is not None and spec.kind not in _FORMS:
        raise ConfigError(
            f"format=adapters holds adapters of sharing.kind=lora, and this run has {spec.kind}; "
            "choose format=safetensors, which holds the merged weights."
        )
    if "adapters" not in policy.team.actor.scheme.banks:
        if policy.phase == policy.config.phase_names[-1]:
            raise ConfigError(
                f"format=adapters needs a run with adapters as ps_lora makes them, and "
                f"sharing={policy.sharing} has none; choose another format."
            )
        raise ConfigError(
            f"step={policy.step} lies in the pretraining of {policy.out}, which has no adapters "
            "yet; give a later step, or another format."
        )
    if len(policy.config.switches) > 1:
        raise ConfigError(
            "format=adapters holds adapters for networks that a checkpoint holds by themselves, "
            f"and {policy.out} has trained or merged them since; choose format=safetensors, which "
            "has the merged weights."
        )
    assert policy.banks is not None  # a run's policy has them
    copy_reader(folder)
    agents = []
    for i, stem in enumerate(file_stems(policy)):
        (folder / stem).mkdir()
        entry = policy.team.actor.scheme.banks["adapters"].index[i]
        adapter = jax.tree.map(np.asarray, entry_of(policy.banks["adapters"], entry))
        adapter = {layer: factors(parts) for layer, parts in adapter.items()}
        stored = store(folder / stem, ADAPTER_MODEL, tensors(adapter))
        config = configuration(policy, i, adapter, stored["sha256"])
        (folder / stem / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        agents.append({**stored, "file": f"{stem}/{ADAPTER_MODEL}"})
    _write_backbone(folder / BACKBONE, policy)
    return agents


def _write_backbone(folder: Path, policy: Policy) -> None:
    """A safetensors export of the networks that the adapters are for."""
    folder.mkdir()
    copy_reader(folder)
    agents = [
        store(folder, f"{stem}.safetensors", named(_net(policy, i)))
        for i, stem in enumerate(file_stems(policy))
    ]
    card_ = card(policy, agents, "safetensors", whole.USE)
    card_["run"]["phase"] = f"{policy.phase}, without adapters"
    (folder / CARD).write_text(json.dumps(card_, indent=2) + "\n")


def _net(policy, agent):
    """The network under an agent, and the normalisation of its observations."""
    assert policy.banks is not None  # a run's policy has them
    index = policy.team.actor.scheme.banks["net"].index[agent]
    return {**entry_of(policy.banks["net"], index), **normaliser(policy)}


def factors(parts: dict) -> dict:
    """A layer's parts with A = P diag(l) and B = Q where it has P, l and Q."""
    if "singular" not in parts:
        return parts
    rest = {name: x for name, x in parts.items() if name not in ("left", "singular", "right")}
    return {**rest, "a": parts["left"] * parts["singular"], "b": parts["right"]}


def tensors(adapter: dict) -> dict[str, np.ndarray]:
    """An agent's adapter {layer: parts} under PEFT's names: A [in, r] is `lora_A` [r, in].

    A full matrix is a pair of which one is the identity: PEFT has no word for it, and would leave
    it out.
    """
    return {
        f"{PREFIX}{layer}.{TENSORS[part]}": np.ascontiguousarray(x.T, np.float32)
        for layer, parts in adapter.items()
        for part, x in _paired(parts).items()
    }


def _paired(parts):
    if "full" not in parts:
        return parts
    full = parts["full"]
    rows, columns = full.shape
    pair = {"a": np.eye(rows), "b": full} if rows < columns else {"a": full, "b": np.eye(columns)}
    return {**{part: x for part, x in parts.items() if part != "full"}, **pair}


def configuration(policy: Policy, agent: int, adapter: dict, sha256: str) -> dict:
    """adapter_config.json in PEFT's words; what PEFT has no word for is under `lorasa_jax`."""
    assert policy.banks is not None  # a run's policy has them
    spec = policy.config.lora_spec()
    full = {layer: min(parts["full"].shape) for layer, parts in adapter.items() if "full" in parts}
    ranks = {
        layer: full.get(layer) or parts["a"].shape[-1]
        for layer, parts in adapter.items()
        if layer in full or "a" in parts
    }
    # Rounded: alpha is kept as alpha / rank, or alpha / sqrt(rank). A full matrix is not scaled.
    alphas = {
        layer: (rank**0.5 if spec.rslora else float(rank))
        if layer in full
        else round(spec.scaling(layer_of(layer)) * (rank**0.5 if spec.rslora else rank), 9)
        for layer, rank in ranks.items()
    }
    alpha = float(spec.rank if spec.alpha is None else spec.alpha)
    backbone = policy.team.actor.scheme.banks["net"].index[agent]
    net = _net(policy, agent)
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": backbone_run(policy),
        "r": spec.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": list(ranks),
        "rank_pattern": {layer: rank for layer, rank in ranks.items() if rank != spec.rank},
        "alpha_pattern": {layer: value for layer, value in alphas.items() if value != alpha},
        "bias": _BIAS[spec.bias],
        "fan_in_fan_out": False,
        "inference_mode": True,
        "use_rslora": spec.rslora,
        "lorasa_jax": {
            "agent": policy.team.env.agents[agent],
            "full_modules": list(full),
            "norms": spec.norms,
            "backbone": backbone,
            "backbone_sha256": digest(named(net)),
            "sha256": sha256,
        },
    }


def backbone_run(policy: Policy) -> str:
    """RUN@STEP of the checkpoint whose weights the adapters are for."""
    if policy.config.init_from is not None:
        return policy.config.init_from
    pretraining = [
        row["env_steps"]
        for row in reporting.read_metrics(Path(policy.out))
        if row["phase"] == policy.config.phase_names[0]
    ]
    return f"{policy.out}@{max(pretraining, default=policy.config.switches[0])}"
