"""Adapters alone: PEFT's layout and words, and back onto their backbones."""

import json

import jax
import numpy as np
import pytest
from random_policies import Steps, assert_close, random_policy, trained_forward
from safetensors.numpy import load_file

from lorasa_jax.errors import ConfigError
from lorasa_jax.export import policy as reader
from lorasa_jax.export.command import save
from lorasa_jax.export.source import agent_trees, named
from lorasa_jax.sharing import entry_of

# Every kind of part: low rank under three ranks and two scalings, full matrices, all offsets.
RICH = [
    "env=reacher_2x1", "sharing=ps_lora", "network.log_std=vector", "sharing.rank=2",
    "sharing.alpha=3", "sharing.rank_pattern={gru_*:4,linear_2:0}",
    "sharing.alpha_pattern={linear_1:1}", "sharing.bias=all", "sharing.norms=true",
]  # fmt: skip
GROUPED = [
    "env=specialisation_4", "sharing=seps_lora", "sharing.clusters=[0,1,0,1]", "sharing.rank=2",
    "network.kind=lstm",
]  # fmt: skip
ONE = ["env=specialisation_4", "sharing=shared_lora", "sharing.rank=2", "network.kind=ff"]
MADE = {"rich": RICH, "grouped": GROUPED, "one": ONE}


def backbone(policy, agent):
    """The frozen network under an agent, by names."""
    index = policy.team.actor.scheme.banks["net"].index[agent]
    return named(entry_of(policy.banks["net"], index))


@pytest.fixture(scope="module", params=MADE)
def made(request, tmp_path_factory):
    policy = random_policy(*MADE[request.param])
    folder = tmp_path_factory.mktemp("adapters") / "all"
    save(policy, "adapters", folder)
    return policy, folder


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    policy = random_policy(*RICH)
    folder = tmp_path_factory.mktemp("rich") / "all"
    save(policy, "adapters", folder)
    return policy, folder


def test_adapters_come_back_bit_for_bit(made):
    policy, folder = made
    for agent, name in enumerate(policy.team.env.agents):
        entry = policy.team.actor.scheme.banks["adapters"].index[agent]
        wanted = jax.tree.map(np.asarray, entry_of(policy.banks["adapters"], entry))
        _, found = reader.read_adapter(folder / name)
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_on_its_backbone_an_adapter_gives_the_merged_weights(made):
    policy, folder = made
    for agent, tree in enumerate(agent_trees(policy)):
        name = policy.team.env.agents[agent]
        found = reader.load_adapters(folder / name, backbone(policy, agent))
        assert_close(found, named(tree), tolerance=1e-6)


def test_a_backbones_export_with_adapters_acts_as_training_does(made, tmp_path):
    """The way of a user: export the pretrained checkpoint, load it, put the adapters on."""
    policy, folder = made
    overrides = next(words for words in MADE.values() if f"sharing={policy.sharing}" in words)
    pretrained = random_policy(*overrides, phase=0, banks={"net": policy.banks["net"]})
    save(pretrained, "safetensors", tmp_path / "backbone")
    steps = Steps(policy)
    wanted = trained_forward(policy, steps)
    found = reader.with_adapters(reader.load(tmp_path / "backbone"), folder)
    carry = steps.carry
    for i in range(len(steps)):
        carry, action = found.act(steps.obs[i], carry, steps.first[i], steps.legal[i])
        np.testing.assert_allclose(action, wanted["action"][i], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(carry, wanted["carry"], rtol=1e-5, atol=1e-5)


def test_the_configuration_speaks_pefts_words(rich):
    policy, folder = rich
    config = json.loads((folder / "agent_1" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert (config["r"], config["lora_alpha"], config["bias"]) == (2, 3.0, "all")
    assert config["base_model_name_or_path"] == f"runs/none@{policy.config.switch_at}"
    assert sorted(config["target_modules"]) == [
        "gru_h_5", "gru_x_4", "linear_1", "linear_3", "linear_6", "linear_7",
    ]  # fmt: skip
    # A full matrix is a pair with an identity, unscaled.
    assert config["rank_pattern"] == {"gru_h_5": 4, "gru_x_4": 4, "linear_7": 1}
    assert config["alpha_pattern"] == {"linear_1": 1.0, "linear_7": 1.0}
    ours = config["lorasa_jax"]
    assert (ours["agent"], ours["full_modules"], ours["norms"]) == ("agent_1", ["linear_7"], True)


def test_without_alpha_every_layer_is_scaled_by_one(tmp_path):
    """PEFT divides lora_alpha by the layer's rank, so that each rank needs its own alpha."""
    policy = random_policy(
        "env=specialisation_2", "sharing=ps_lora", "sharing.rank=2",
        "sharing.rank_pattern={gru_*:4}",
    )  # fmt: skip
    save(policy, "adapters", tmp_path / "all")
    config, _ = reader.read_adapter(tmp_path / "all" / "agent_0")
    assert (config["r"], config["lora_alpha"]) == (2, 2.0)
    assert config["rank_pattern"] == {"gru_h_5": 4, "gru_x_4": 4}
    assert config["alpha_pattern"] == {"gru_h_5": 4.0, "gru_x_4": 4.0}


def test_tensors_follow_pefts_convention(rich):
    """PyTorch's weight [out, in] becomes weight + lora_alpha / r lora_B lora_A."""
    policy, folder = rich
    tensors = load_file(folder / "agent_0" / "adapter_model.safetensors")
    merged, net = named(agent_trees(policy)[0]), backbone(policy, 0)
    for layer, rank, alpha in (("linear_1", 2, 1.0), ("linear_3", 2, 3.0), ("gru_x_4", 4, 3.0)):
        a, b = (tensors[f"base_model.model.{layer}.lora_{x}.weight"] for x in "AB")
        assert a.shape == (rank, net[f"{layer}.kernel"].shape[0])
        assert b.shape == (net[f"{layer}.kernel"].shape[1], rank)
        np.testing.assert_allclose(
            merged[f"{layer}.kernel"].T, net[f"{layer}.kernel"].T + alpha / rank * b @ a, rtol=1e-5,
            atol=1e-6,
        )  # fmt: skip
    full, one = (tensors[f"base_model.model.linear_7.lora_{x}.weight"] for x in "AB")
    assert full.shape == (1, 8) and one.tolist() == [[1.0]]
    rest = {name for name in tensors if ".lora_" not in name}
    assert {f"base_model.model.{name}" for name in (
        "linear_2.delta.bias", "norm_1.delta.weight", "norm_1.delta.bias", "log_std.delta",
    )} <= rest  # fmt: skip
    assert not any("linear_2.lora" in name for name in tensors)  # its rank is 0


def test_another_backbone_is_refused_or_taken_on_demand(rich):
    policy, folder = rich
    other = {name: x + np.float32(1.0) for name, x in backbone(policy, 0).items()}
    with pytest.raises(ValueError, match="was trained on another backbone, runs/none@"):
        reader.load_adapters(folder / "agent_0", other)
    found = reader.load_adapters(folder / "agent_0", other, any_backbone=True)
    wanted = named(agent_trees(policy)[0])
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x + 1.0, rtol=1e-5, atol=1e-5)


def test_weights_of_another_architecture_are_refused(rich):
    policy, folder = rich
    other = {name: x for name, x in backbone(policy, 0).items() if not name.startswith("gru_x")}
    with pytest.raises(ValueError, match=r"does not fit these weights: gru_x_4\.\w+ differs"):
        reader.load_adapters(folder / "agent_0", other, any_backbone=True)


def test_adapters_for_another_team_are_refused(rich, tmp_path):
    save(random_policy("env=specialisation_4", "sharing=ps"), "safetensors", tmp_path / "four")
    with pytest.raises(ValueError, match="for 2 agents, not 4"):
        reader.with_adapters(reader.load(tmp_path / "four"), rich[1])


@pytest.mark.parametrize(
    "overrides, phase, told",
    [
        (["sharing=ps"], -1, "sharing=ps has none"),
        (["sharing=nps"], -1, "sharing=nps has none"),
        (["sharing=bias"], -1, "sharing=bias has none"),
        (["sharing=ps_lora"], 0, "step=16 lies in the pretraining of runs/none"),
    ],
)
def test_without_adapters_there_is_nothing_to_export(tmp_path, overrides, phase, told):
    policy = random_policy("env=specialisation_2", *overrides, phase=phase)
    with pytest.raises(ConfigError, match=told):
        save(policy, "adapters", tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["dora", "vera", "lora_xs", "ia3", "mtl_lora"])
def test_other_kinds_than_lora_are_refused(tmp_path, kind):
    policy = random_policy("env=specialisation_2", "sharing=ps_lora", f"sharing.kind={kind}")
    with pytest.raises(ConfigError, match=f"sharing.kind=lora, and this run has {kind}"):
        save(policy, "adapters", tmp_path / "x")


def test_rslora_is_pefts_use_rslora(tmp_path):
    policy = random_policy(
        "env=specialisation_2", "sharing=ps_lora", "sharing.rank=2", "sharing.alpha=3",
        "sharing.scaling=rslora",
    )  # fmt: skip
    save(policy, "adapters", tmp_path / "all")
    config, _ = reader.read_adapter(tmp_path / "all" / "agent_0")
    assert (config["use_rslora"], config["lora_alpha"], config["alpha_pattern"]) == (True, 3.0, {})
    found = reader.load_adapters(tmp_path / "all" / "agent_0", backbone(policy, 0))
    assert_close(found, named(agent_trees(policy)[0]), tolerance=1e-6)


def test_damaged_adapters_are_refused(rich, tmp_path):
    policy, _ = rich
    folder = tmp_path / "all"
    save(policy, "adapters", folder)
    model = folder / "agent_0" / "adapter_model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        reader.read_adapter(folder / "agent_0")
    model.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ValueError, match="has changed since it was exported"):
        reader.read_adapter(folder / "agent_0")
    (folder / "agent_0" / "adapter_config.json").write_text('{"r": 8}')
    with pytest.raises(ValueError, match="is not of lorasa_jax"):
        reader.read_adapter(folder / "agent_0")
