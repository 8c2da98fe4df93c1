"""Every format acts as training does, to 1e-5, over steps with resets in between."""

import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from random_policies import Steps, assert_close, random_policy, trained_forward

import lorasa_jax
from lorasa_jax.export import policy as reader
from lorasa_jax.export.command import save
from lorasa_jax.export.source import agent_trees, has_masks, named

DISCRETE, CONTINUOUS = "env=specialisation_2", "env=reacher_2x1"
LORA, VECTOR = "sharing=ps_lora", "network.log_std=vector"
CASES = {
    "gru discrete ps": [DISCRETE, "sharing=ps"],
    "gru discrete nps": [DISCRETE, "sharing=nps"],
    "gru discrete ps_lora": [DISCRETE, LORA, "sharing.bias=all", "sharing.norms=true"],
    "gru continuous ps": [CONTINUOUS, "sharing=ps"],
    "gru continuous nps vector": [CONTINUOUS, "sharing=nps", VECTOR],
    "gru continuous ps_lora": [CONTINUOUS, LORA, "sharing.rank=2", "sharing.alpha=3"],
    "gru continuous ps_lora vector": [CONTINUOUS, LORA, VECTOR, "sharing.targets=[gru_*]"],
    "gru discrete dora": [DISCRETE, LORA, "sharing.kind=dora", "sharing.rank=2"],
    "gru continuous mtl_lora": [CONTINUOUS, LORA, VECTOR, "sharing.kind=mtl_lora"],
    "lstm discrete ps_lora": [DISCRETE, LORA, "network.kind=lstm", "sharing.rank=2"],
    "lstm continuous nps": [CONTINUOUS, "sharing=nps", "network.kind=lstm"],
    "ff discrete nps": [DISCRETE, "sharing=nps", "network.kind=ff"],
    "ff continuous ps_lora vector": [CONTINUOUS, LORA, VECTOR, "network.kind=ff"],
    "gru discrete ps_lora shallow bare": [
        DISCRETE, LORA, "network.depth=1", "network.layer_norm=false",
    ],
    "gru discrete mtl": [DISCRETE, "sharing=mtl"],
    "gru discrete seps_lora": [
        "env=specialisation_4", "sharing=seps_lora", "sharing.clusters=[0,1,0,1]",
        "sharing.rank=2",
    ],
}  # fmt: skip


class Case(NamedTuple):
    policy: object
    steps: Steps
    wanted: dict
    folder: object


def made(overrides, folder):
    policy = random_policy(*overrides)
    steps = Steps(policy)
    for kind in ("safetensors", "onnx", "stablehlo"):
        save(policy, kind, folder / kind)
    return Case(policy, steps, trained_forward(policy, steps), folder)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def case(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return made(CASES["gru discrete ps_lora"], tmp_path_factory.mktemp("masked"))


@pytest.mark.sample(3)
def test_numpy_acts_as_training_does(case):
    found, steps = reader.load(case.folder / "safetensors"), case.steps
    carry, rows = steps.carry, []
    for obs, first, legal in zip(steps.obs, steps.first, steps.legal, strict=True):
        _, outputs = found.outputs(obs, carry, first)
        carry, action = found.act(obs, carry, first, legal)
        rows.append({"action": action, **outputs})
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    assert stacked["action"].dtype == (np.int64 if has_masks(case.policy) else np.float32)
    assert_close({"carry": carry, **stacked}, case.wanted)


@pytest.mark.sample(3)
def test_policies_read_back_act_as_training_does(case):
    """The run's own policy and that of its safetensors export, step by step."""
    steps = case.steps
    for policy in (case.policy, lorasa_jax.load(case.folder / "safetensors")):
        carry, actions = steps.carry, []
        for obs, first, legal in zip(steps.obs, steps.first, steps.legal, strict=True):
            carry, action = policy.act(obs, carry, first, legal)
            actions.append(action)
        found = {"carry": np.asarray(carry), "action": np.stack(actions)}
        assert_close(found, {name: case.wanted[name] for name in found})


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    found = onnxruntime.InferenceSession(str(path), options)
    names = [value.name for value in found.get_inputs()]
    outputs = [value.name for value in found.get_outputs()]

    def step(carry, obs, first, legal):
        given = {"carry": carry, "obs": obs, "first": first, "legal": legal}
        results = found.run(None, {name: given[name] for name in names})
        results = dict(zip(outputs, results, strict=True))
        return results.pop("next_carry"), results

    return step


def loaded(path, masks):
    exported = jax.export.deserialize(path.read_bytes())

    def step(carry, obs, first, legal):
        return exported.call(carry, obs, first, *([legal] if masks else []))

    return jax.jit(step)


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_every_agents_function_acts_as_training_does(case, kind):
    steps, agents = case.steps, case.policy.team.env.agents
    # Compiling is what takes time, and the last agent's weights are not the first one's.
    for agent, name in list(enumerate(agents))[-1 if kind == "stablehlo" else 0 :]:
        path = case.folder / kind / f"{name}.{kind}"
        step = session(path) if kind == "onnx" else loaded(path, has_masks(case.policy))
        carry, rows = steps.carry[:, agent], []
        for i in range(len(steps)):
            carry, outputs = step(
                carry, steps.obs[i, :, agent], steps.first[i], steps.legal[i, :, agent]
            )
            rows.append(outputs)
        found = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        wanted = {
            name: x[:, agent] if name == "carry" else x[:, :, agent]
            for name, x in case.wanted.items()
        }
        assert_close({"carry": np.asarray(carry), **found}, wanted)


def test_only_legal_actions_are_best(masked):
    action, legal = masked.wanted["action"], masked.steps.legal
    assert np.take_along_axis(legal, action[..., None], -1).all()
    # The masks do forbid something, or all parity with them would say nothing.
    assert (masked.wanted["logits"].argmax(-1) != action).any()


def test_where_an_episode_begins_the_old_carry_counts_for_nothing(masked):
    found, steps = reader.load(masked.folder / "safetensors"), masked.steps
    begins = np.ones(3, bool)
    carry = found.initial_carry(3)
    assert carry.shape == steps.carry.shape and not carry.any()
    np.testing.assert_array_equal(
        found.outputs(steps.obs[0], steps.carry, begins)[0],
        found.outputs(steps.obs[0], carry, ~begins)[0],
    )


def test_numpy_takes_any_leading_axes_and_refuses_other_shapes(masked):
    found, steps = reader.load(masked.folder / "safetensors"), masked.steps
    one = found.act(steps.obs[0, 0], steps.carry[0], steps.first[0, 0], steps.legal[0, 0])
    many = found.act(steps.obs[0], steps.carry, steps.first[0], steps.legal[0])
    np.testing.assert_allclose(one[0], many[0][0], rtol=1e-5)
    assert one[1].shape == (2,) and one[1].tolist() == many[1][0].tolist()
    with pytest.raises(ValueError, match=r"obs \[3, 2, 5\] must be \[..., 2 agents, 6\]"):
        found.act(steps.obs[0, ..., :5], steps.carry, steps.first[0])
    with pytest.raises(ValueError, match="carry"):
        found.act(steps.obs[0], steps.carry[:2], steps.first[0])


@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_functions_take_any_batch_and_observations_far_from_zero(masked, batch, offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(batch, 2, 6)) + offset).astype(np.float32)
    carry = rng.normal(size=(batch, 2, 8)).astype(np.float32)
    first, legal = np.zeros(batch, bool), np.ones((batch, 2), bool)
    wanted, outputs = reader.load(masked.folder / "safetensors").outputs(x, carry, first)
    name = masked.policy.team.env.agents[1]
    for step in (
        session(masked.folder / "onnx" / f"{name}.onnx"),
        loaded(masked.folder / "stablehlo" / f"{name}.stablehlo", True),
    ):
        found, results = step(carry[:, 1], x[:, 1], first, legal)
        np.testing.assert_allclose(found, wanted[:, 1], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(results["logits"], outputs["logits"][:, 1], rtol=1e-5, atol=1e-5)


@pytest.mark.sample(3)
def test_onnx_files_are_checked_and_old_enough_for_old_runtimes(case):
    for path in (case.folder / "onnx").glob("*.onnx"):
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        assert [entry.version for entry in model.opset_import] == [17]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_files_hold_every_agents_merged_weights(case):
    found = reader.load(case.folder / "safetensors")
    for weights, tree in zip(found.weights, agent_trees(case.policy), strict=True):
        for name, x in named(tree).items():
            np.testing.assert_array_equal(weights[name], x)
    assert found.card["env"]["name"] == case.policy.config.env["name"]


ALONE = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
{body}
unwanted = {{"jax", "flax", "lorasa_jax"}} - {{{allowed!r}}}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
np.save({result!r}, action)
"""
NUMPY = """
from policy import load
policy = load({folder!r})
given = np.load({given!r})
carry, action = policy.act(given["obs"], given["carry"], given["first"], given["legal"])
action = action[:, 0]
"""
JAX = """
import jax, pathlib
step = jax.export.deserialize(pathlib.Path({folder!r}, "agent_0.stablehlo").read_bytes()).call
given = np.load({given!r})
carry, outputs = step(*(given[k][:, 0] for k in ("carry", "obs")), given["first"],
                      given["legal"][:, 0])
action = outputs["action"]
"""


@pytest.mark.parametrize(
    "kind, body, allowed", [("safetensors", NUMPY, ""), ("stablehlo", JAX, "jax")]
)
def test_loading_takes_nothing_of_this_library(masked, tmp_path, kind, body, allowed):
    steps, folder = masked.steps, str(masked.folder / kind)
    given, result = str(tmp_path / "given.npz"), str(tmp_path / "result.npy")
    np.savez(given, obs=steps.obs[0], carry=steps.carry, first=steps.first[0], legal=steps.legal[0])
    body = body.format(folder=folder, given=given)
    script = ALONE.format(folder=folder, body=body, allowed=allowed, result=result)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(result), masked.wanted["action"][0, :, 0])
