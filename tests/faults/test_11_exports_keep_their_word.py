"""Exports keep their word: a reader of an export is told what it needs, and finds it all."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lorasa_jax.export import policy as reader
from lorasa_jax.export.command import FORMATS, save
from lorasa_jax.export.source import agent_trees, named
from tests.export.random_policies import random_policy

pytestmark = pytest.mark.faults

TOP = Path(__file__).parents[2]
MADE = {
    "every kind of part": [
        "env=reacher_2x1", "sharing=ps_lora", "sharing.rank=2", "sharing.alpha=3",
        "sharing.rank_pattern={gru_*:4,linear_2:0}", "sharing.bias=all", "sharing.norms=true",
    ],
    "full matrices alone": ["env=specialisation_2", "sharing=ps_lora", "sharing.rank=64"],
    "scaled by the root of the rank": [
        "env=specialisation_2", "sharing=ps_lora", "sharing.rank=6", "sharing.scaling=rslora",
        "sharing.alpha=5", "env.agent_ids=false",
    ],
    "on the networks of clusters": [
        "env=specialisation_4", "sharing=seps_lora", "sharing.clusters=[0,1,0,1]",
        "sharing.rank=2", "env.standardise=true",
    ],
    "one for all": ["env=specialisation_4", "sharing=shared_lora", "sharing.rank=2"],
}  # fmt: skip


@pytest.fixture(scope="module", params=MADE)
def made(request, tmp_path_factory):
    policy = random_policy(*MADE[request.param])
    folder = tmp_path_factory.mktemp("adapters") / "all"
    save(policy, "adapters", folder)
    return policy, folder


def as_peft_reads(folder, weights):
    """Kernels with an adapter as PEFT puts it on: of pairs alone, W + alpha / r B A [out, in]."""
    config = json.loads((folder / reader.ADAPTER_CONFIG).read_text())
    tensors = load_file(folder / reader.ADAPTER_MODEL)
    merged = {}
    for layer in config["target_modules"]:
        a, b = (tensors.pop(f"base_model.model.{layer}.lora_{x}.weight") for x in "AB")
        rank = config["rank_pattern"].get(layer, config["r"])
        alpha = config["alpha_pattern"].get(layer, config["lora_alpha"])
        assert (a.shape[0], b.shape[1]) == (rank, rank)
        scale = np.float32(alpha / (rank**0.5 if config["use_rslora"] else rank))
        merged[layer] = weights[f"{layer}.kernel"] + scale * (b @ a).T
    return config, merged, tensors


@pytest.mark.sample(5)
def test_peft_leaves_no_matrix_out(made):
    policy, folder = made
    backbone = reader.load(folder / "backbone")
    for i, tree in enumerate(agent_trees(policy)):
        own, wanted = folder / policy.team.env.agents[i], named(tree)
        config, merged, rest = as_peft_reads(own, backbone.weights[i])
        kernels = [name for name in wanted if name.endswith(".kernel")]
        changed = {
            name.removesuffix(".kernel") for name in kernels
            if (wanted[name] != backbone.weights[i][name]).any()
        }  # fmt: skip
        assert changed == set(merged)
        for layer, kernel in merged.items():
            np.testing.assert_allclose(kernel, wanted[f"{layer}.kernel"], rtol=1e-6, atol=1e-6)
        for layer in config["lorasa_jax"]["full_modules"]:
            np.testing.assert_array_equal(merged[layer], wanted[f"{layer}.kernel"])
        # What is left is for what PEFT has no word: offsets, and no matrix of a layer.
        assert all(name.endswith(("delta", "delta.bias", "delta.weight")) for name in rest)
        assert all(x.ndim == 1 for x in rest.values())


@pytest.mark.sample(5)
def test_the_backbone_is_written_with_the_adapters_and_fits_them(made):
    policy, folder = made
    merged = reader.with_adapters(reader.load(folder / "backbone"), folder)
    for found, tree in zip(merged.weights, agent_trees(policy), strict=True):
        for name, x in named(tree).items():
            np.testing.assert_allclose(found[name], x, rtol=1e-6, atol=1e-6)


@pytest.mark.sample(5)
def test_a_card_says_whether_ids_are_part_of_an_observation(made):
    policy, folder = made
    for card in (
        json.loads((at / "policy.json").read_text()) for at in (folder, folder / "backbone")
    ):
        ids, env = card["agent_ids"], policy.env()
        assert ids["in_observation"] == policy.config.env["agent_ids"]
        if ids["in_observation"]:
            first, last = ids["features"]
            assert (last - first, last) == (len(card["agents"]), card["observation_size"])
            import jax

            _, timestep = env.reset(jax.random.key(0))
            where = np.asarray(timestep.obs)[:, first:last].argmax(-1)
            assert where.tolist() == list(range(len(card["agents"])))
            assert ("standardised" in ids["what"]) == policy.config.env["standardise"]


def test_what_a_format_needs_is_said_where_it_is_chosen():
    assert "flatbuffers" in FORMATS["stablehlo"].use
    page = (TOP / "docs" / "exports.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| `stablehlo`")]
    assert "jax and flatbuffers" in row
    assert "JAX alone" not in page + (TOP / "README.md").read_text()
