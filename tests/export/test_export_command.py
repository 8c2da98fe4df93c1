"""The command on a run that was really trained, what it refuses, and evaluation of exports."""

import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import envs, evaluate
from lorasa_jax.envs.wrappers import ObservationWrapper
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import command, policy
from lorasa_jax.export.source import agent_trees, named, read

SEEDS = (3, 4)
TINY = [
    "env=specialisation_2", "algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=2",
    "algo.epochs=1", "algo.actor_lr=0.05", "total_steps=24", "switch_at=8", "eval_every=3",
    "eval_episodes=2", "checkpoint_every=1", "updates_per_call=1", "network.hidden=8",
    "network.depth=1",
    "sharing.rank=2", "sharing.bias=lora", "sharing.norms=true", "num_seeds=2",
    f"seed={SEEDS[0]}",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two seeds, PS+LoRA, with checkpoints at steps 8, 16 and 24."""
    from lorasa_jax.run import execute

    out = tmp_path_factory.mktemp("export") / "run"
    execute(configuration.load([*TINY, f"out={out}"]))
    return out


@pytest.fixture(scope="module")
def source(run):
    return read(run, None, 4)


@pytest.fixture(scope="module")
def exports(run, tmp_path_factory):
    """Every format of seed 4, and a second safetensors export of the backbone."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in command.FORMATS:
        command.main([f"out={run}", "policy=4", f"format={kind}", f"to={folder / kind}"])
    command.main([f"out={run}", "policy=4", "step=8", f"to={folder / 'backbone'}"])
    return folder


def refused(main, capsys, *arguments):
    """The one sentence with which `main` refuses the arguments."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and text.rstrip()[-1] in ".?", text
    return text


@pytest.mark.full
def test_the_command_says_where_it_wrote(run):
    done = subprocess.run(
        [sys.executable, "-m", "lorasa_jax.export", f"out={run}", "policy=3"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    folder = run / "exports" / "safetensors-seed3-step24"
    assert done.returncode == 0, done.stderr
    assert str(folder) in done.stdout and not done.stderr
    assert {path.name for path in folder.iterdir()} == {
        "agent_0.safetensors", "agent_1.safetensors", "policy.json", "policy.py",
    }  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_card_says_what_was_exported(run, exports):
    cards = {
        kind: json.loads((exports / kind / "policy.json").read_text()) for kind in command.FORMATS
    }
    for kind, card in cards.items():
        assert card["format"] == kind and card["use"]
        assert card["env"] == {
            "name": "specialisation_2", "agent_ids": True, "standardise": False,
            "normalise": "none",
        }  # fmt: skip
        assert [agent["name"] for agent in card["agents"]] == ["agent_0", "agent_1"]
        assert all((exports / kind / agent["file"]).is_file() for agent in card["agents"])
        assert card["action"] == {"kind": "discrete", "n": 2}
        assert card["observation_size"] == 6
        assert card["parameters"]["gru_x_4.kernel"] == [8, 24]
        assert (card["network"]["kind"], card["network"]["hidden"]) == ("gru", 8)
        made = card["run"]
        assert (made["seed"], made["step"], made["phase"]) == (4, 24, "finetune")
        assert (made["out"], made["algo"], made["sharing"]["name"]) == (
            str(run),
            "mappo",
            "ps_lora",
        )


def test_weights_are_those_of_the_chosen_seed_and_step(run, source, exports):
    found = policy.load(exports / "safetensors")
    here, other = (agent_trees(found) for found in (source, read(run, None, 3)))
    for weights, tree, another in zip(found.weights, here, other, strict=True):
        for name, x in named(tree).items():
            np.testing.assert_array_equal(weights[name], x)
        assert any((weights[name] != x).any() for name, x in named(another).items())
    apart = [name for name, x in found.weights[0].items() if (x != found.weights[1][name]).any()]
    assert {"gru_x_4.kernel", "linear_7.kernel", "norm_1.scale", "linear_1.bias"} <= set(apart)
    backbone = policy.load(exports / "backbone").weights
    for name, x in backbone[0].items():
        np.testing.assert_array_equal(x, backbone[1][name])


def test_backbone_and_adapters_make_the_merged_policy(run, exports):
    config, _ = policy.read_adapter(exports / "adapters" / "agent_1")
    assert config["base_model_name_or_path"] == f"{run}@8"
    merged = policy.with_adapters(policy.load(exports / "backbone"), exports / "adapters")
    for found, wanted in zip(
        merged.weights, policy.load(exports / "safetensors").weights, strict=True
    ):
        for name, x in wanted.items():
            np.testing.assert_allclose(found[name], x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("more", [[], ["sampled=true", "episodes=7", "seed=5"]])
def test_an_export_plays_as_its_run_does(run, exports, more):
    of_run, of_export = (
        evaluate.evaluate(evaluate.parse([f"out={out}", *more]))
        for out in (run, exports / "safetensors")
    )
    assert of_export["policies"] == [of_run["policies"][1]]
    for key in ("env", "step", "episodes", "actions", "seed"):
        assert of_export[key] == of_run[key]
    assert of_export["episodes"] == (7 if more else 100)


class Won(ObservationWrapper):
    """Says at every step whether the last reward was above a half of the best."""

    def view(self, timestep):
        return timestep._replace(info={"won": (timestep.reward > 0.05).astype(jnp.float32)})


def test_the_table_has_mean_median_interval_and_win_rate(exports, monkeypatch, capsys):
    make = envs.make
    monkeypatch.setattr(envs, "make", lambda name, **options: Won(make(name, **options)))
    evaluate.main([f"out={exports / 'safetensors'}", "episodes=10"])
    table = capsys.readouterr().out
    for word in ("specialisation_2 at step 24: 10 greedy episodes", "mean", "median", "win rate"):
        assert word in table
    found = json.loads((exports / "safetensors" / "evaluation.json").read_text())["policies"]
    low, high = found[0]["interval"]
    assert low <= found[0]["mean"] <= high and found[0]["policy"] == 4
    assert found[0]["win_rate"] in (0.0, 1.0) and found[0]["length"] == 10.0


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["format=pickle"], "format=pickle is not known; choose one of safetensors, stablehlo"),
        (["fromat=onnx"], "unknown key fromat; did you mean format?"),
        (["onnx"], "onnx is not of the form key=value"),
        (["step=1.5"], "step=1.5 must be a whole number"),
        (["policy=best"], "must be a whole number"),
        ([], "holds a policy for each of the seeds 3, 4; add policy=SEED"),
        (["policy=7"], "policy=7 is not a seed of this run; choose from 3, 4"),
        (["policy=3", "step=13"], "has no checkpoint at step 13; those it has are at 8, 16, 24"),
        (["policy=3", "step=8", "format=adapters"], "step=8 lies in the pretraining"),
    ],
)
def test_refused_in_one_sentence(run, capsys, arguments, told):
    assert told in refused(command.main, capsys, f"out={run}", *arguments)


def test_a_run_must_be_named_and_there(tmp_path, capsys):
    assert "give out=" in refused(command.main, capsys, "format=onnx")
    assert "holds no run" in refused(command.main, capsys, f"out={tmp_path}")


@pytest.mark.full
def test_a_folder_in_use_or_out_of_reach_is_refused(run, exports, tmp_path, capsys):
    words = (f"out={run}", "policy=3")
    before = (exports / "onnx" / "policy.json").read_bytes()
    assert "exists already" in refused(command.main, capsys, *words, f"to={exports / 'onnx'}")
    assert (exports / "onnx" / "policy.json").read_bytes() == before
    assert "exists already" in refused(command.main, capsys, *words, "to=/")
    (tmp_path / "file").write_text("x")
    told = refused(command.main, capsys, *words, f"to={tmp_path / 'file' / 'folder'}")
    assert "cannot be written" in told


def test_an_export_that_fails_leaves_nothing(source, tmp_path, monkeypatch):
    def full(folder, policy):
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(command.FORMATS, "onnx", command.Format(full, ""))
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        command.save(source, "onnx", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="needs the package onnx, which is not installed; pip"):
        command.save(source, "onnx", tmp_path / "x")


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_unfinished_run_needs_a_step(copy, capsys):
    (copy / "summary.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "3")
    told = refused(command.main, capsys, f"out={copy}", "policy=3")
    assert "is unfinished, at step 16 of 24; let it finish, or give step=16" in told
    command.main([f"out={copy}", "policy=3", "step=16", f"to={copy / 'x'}"])
    assert policy.load(copy / "x").card["run"]["step"] == 16


def test_a_run_without_checkpoints_is_refused(copy, capsys):
    shutil.rmtree(copy / "checkpoints")
    assert "has no checkpoint yet" in refused(command.main, capsys, f"out={copy}")


def test_a_run_of_another_version_is_refused(copy, capsys):
    lines = (copy / "config.yaml").read_text().splitlines(keepends=True)
    (copy / "config.yaml").write_text(
        "".join(line for line in lines if not line.startswith("switch_patience"))
    )
    assert "another version" in refused(command.main, capsys, f"out={copy}", "policy=3")


@pytest.mark.parametrize("text", ["env: {name: [", "- a\n- b\n", "just words", ""])
def test_a_damaged_configuration_is_refused(copy, capsys, text):
    (copy / "config.yaml").write_text(text)
    assert "config.yaml" in refused(command.main, capsys, f"out={copy}", "policy=3")


def test_a_damaged_checkpoint_is_refused(copy, capsys):
    for path in (copy / "checkpoints" / "3" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be read" in refused(command.main, capsys, f"out={copy}", "policy=3")


@pytest.fixture
def exported(exports, tmp_path):
    shutil.copytree(exports / "safetensors", tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["policy=3"], "policy=3 is not a seed of this run; choose from 4"),
        (["step=8"], "is an export of step 24; drop step"),
        (["episodes=0"], "episodes=0 must be at least 1"),
        (["render=true"], "env=specialisation_2 has no pictures"),
    ],
)
def test_evaluation_refuses_what_an_export_is_not(exported, capsys, arguments, told):
    assert told in refused(evaluate.main, capsys, f"out={exported}", *arguments)


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "adapters"])
def test_evaluation_plays_safetensors_exports_alone(exports, capsys, kind):
    told = refused(evaluate.main, capsys, f"out={exports / kind}")
    assert f"holds an export of format {kind}, not safetensors" in told


def edit(folder, **changes):
    card = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**card, **changes}))


def test_evaluation_refuses_damaged_exports(exported, capsys):
    def told():
        return refused(evaluate.main, capsys, f"out={exported}")

    file = exported / "agent_1.safetensors"
    whole, card = file.read_bytes(), (exported / "policy.json").read_text()
    file.write_bytes(whole[: len(whole) // 2])
    assert "no whole safetensors file" in told()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "has changed since it was exported" in told()
    file.unlink()
    assert "cannot be read (No such file or directory)" in told()
    file.write_bytes(whole)
    for text, words in ((card[:99], "no whole JSON file"), ("[]", "no whole JSON file")):
        (exported / "policy.json").write_text(text)
        assert words in told()
    (exported / "policy.json").write_text(card)
    edit(exported, parameters={})
    assert "holds other weights than policy.json says" in told()


def test_evaluation_refuses_other_versions(exported, capsys):
    edit(exported, observation_size=5)
    told = refused(evaluate.main, capsys, f"out={exported}")
    assert "exported for another version of specialisation_2" in told
    edit(exported, observation_size=6, format_version=2)
    assert "is of format version 2" in refused(evaluate.main, capsys, f"out={exported}")
