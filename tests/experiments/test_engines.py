import json

import jax
import numpy as np
import pytest

from experiments import engines
from lorasa_jax import envs
from lorasa_jax.errors import ConfigError


def test_every_robot_is_measured_once():
    assert set(engines.TASKS) == {
        "halfcheetah", "walker2d", "ant", "humanoid", "hopper", "humanoid_standup", "swimmer",
        "reacher",
    }  # fmt: skip


def test_the_engine_alone_replays_the_rollouts_own_inputs():
    """A recorded input, stepped on its own, is the input that the rollout went on with."""
    env = envs.make("hopper_3x1", engine="native")
    function, arguments = engines.rollout(env, 3, 6, record=True)
    physics, actions = function(*arguments)[1]
    assert physics.qpos.shape == (6, 3, 6) and actions.shape == (6, 3, 3, 1)
    first = jax.tree.map(lambda x: x[:5], (physics, actions))
    replayed = engines.replay(env, 3, first)()
    step = jax.vmap(lambda physics, ctrl: env.stepper.step(physics, ctrl)[0])
    before = jax.tree.map(lambda x: x[4], physics)
    after = step(before, np.asarray(actions[4, :, :, 0])[:, np.argsort(env.action_index[:, 0])])
    np.testing.assert_allclose(after.qpos, physics.qpos[5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(replayed, physics.qpos[5], rtol=1e-5, atol=1e-6)


def test_a_batch_that_takes_too_long_is_not_measured():
    cell = engines.measure_cell("ant", "mjx", 4096, guess=1.0)
    assert cell.steps_per_second is None
    assert "4096 s" in cell.note


@pytest.mark.full
def test_a_small_table_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "SECONDS", 0.01)
    monkeypatch.setattr(engines, "REPEATS", 1)
    arguments = ["physics=hopper", "engines=native", "batches=2,4", f"out={tmp_path}/new"]
    tmp_path /= "new"
    engines.main(arguments)
    result = json.loads((tmp_path / "engines.json").read_text())
    assert [(cell["robot"], cell["batch"]) for cell in result["cells"]] == [
        ("hopper", 2), ("hopper", 4),
    ]  # fmt: skip
    for cell in result["cells"]:
        assert cell["steps_per_second"] > 0 and cell["raw_steps_per_second"] > 0
        assert cell["compile_seconds"] > 0 and cell["memory_mib"] > 0
    # The same command again measures nothing.
    monkeypatch.setattr(engines, "measure_cell", None)
    engines.main(arguments)
    assert json.loads((tmp_path / "engines.json").read_text())["cells"] == result["cells"]
    text = (tmp_path / "engines.md").read_text()
    assert "| hopper | native | 2 |" in text and "physics=hopper" in text
    assert "out=" not in text


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["physics=dog"], "physics=dog is not known; choose from"),
        (["physics="], "physics= is not known; choose from"),
        (["physics=all", "batches=few"], "must be whole numbers"),
        (["physics=all", "batches=0"], "must be whole numbers"),
        (["physics=all", "engines=bullet"], "choose one of auto, native, mjx, warp"),
        (["physics=all", "speed=high"], "unknown key speed"),
    ],
)
def test_refusals(arguments, told):
    with pytest.raises(ConfigError, match=told):
        engines.main(arguments)


@pytest.mark.full
def test_what_has_no_result_is_ended_and_larger_batches_are_not_tried(monkeypatch):
    tried = []

    def apart(robot, engine, batch, guess):
        tried.append(batch)
        done = batch < 4
        note = "" if done else "no result after 240 s"
        return engines.Cell(robot, engine, batch, 10.0 if done else None, note=note)

    monkeypatch.setattr(engines, "measure_apart", apart)
    cells = list(engines.measure(["ant"], ["mjx"], [2, 4, 8], progress=lambda line: None))[-1]
    assert tried == [2, 4]
    assert [cell.note for cell in cells] == ["", "no result after 240 s", "not tried after 4"]


def test_a_cell_without_a_result_in_time_is_ended(monkeypatch):
    monkeypatch.setattr(engines, "LIMIT", 0.01)
    assert engines.measure_apart("ant", "mjx", 2, 1.0).note.startswith("no result after")
