"""Replays: what is recorded against MuJoCo, and the page in a headless browser."""

import base64
import itertools
import json
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

from lorasa_jax.envs.mamujoco.partitions import PARTITIONS, partition
from lorasa_jax.envs.mamujoco.physics import load_model
from lorasa_jax.envs.mamujoco.replay import page, scene
from lorasa_jax.envs.mamujoco.robots import robot

DT = 0.05


def model_of(name):
    found = partition(name)
    return load_model(robot(found.robot, "lorasa")), found.agents


def motion(model, frames, seed=0):
    """Random poses [frames, nq] along a path; a free root's quaternion is not of unit norm."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.05, (frames, model.nq))
    return model.qpos0 + np.cumsum(steps, 0)


def recorded(name, frames, **values):
    model, agents = model_of(name)
    values = {"dt": DT, "title": name, **values}
    return scene.record(model, motion(model, frames), agents, **values)


def bodies_by_colour(name):
    """{colour: names of bodies}; a nameless body goes by its number."""
    model, agents = model_of(name)
    found = {}
    for body, colour in enumerate(scene.body_colours(model, agents)):
        found.setdefault(tuple(colour), set()).add(model.body(body).name or body)
    return found


def embedded(path):
    text = re.search(r'type="application/json">(.*?)</script>', path.read_text(), re.S)[1]
    return json.loads(text)


# --- colours -------------------------------------------------------------------------------


def test_ant_legs_have_the_colours_of_their_agents():
    found = bodies_by_colour("ant_4x2")
    first, second, third, fourth = (tuple(colour) for colour in scene.palette(4))
    assert found == {
        scene.GREY: {"world", "torso"},
        first: {"front_left_leg", "aux_1", 4},
        second: {"front_right_leg", "aux_2", 7},
        third: {"back_leg", "aux_3", 10},
        fourth: {"right_back_leg", "aux_4", 13},
    }


def test_a_stub_between_two_agents_joints_has_the_colour_of_neither():
    """Hip and ankle belong to different agents: the stub hangs on both."""
    model, agents = model_of("ant_8x1")
    owners = scene.body_agents(model, agents)
    assert [owners[model.body(name).id] for name in ("front_left_leg", "aux_1")] == [-1, 0]
    assert owners[4] == 1


def test_the_trunk_of_a_many_agent_ant_has_no_agents_colour():
    """Its segments have no joints, and each carries two legs or more."""
    model, agents = model_of("manyagent_ant_2x3")
    owners = scene.body_agents(model, agents)
    np.testing.assert_array_equal(owners[[model.body(f"torso_{i}").id for i in range(6)]], -1)
    assert [np.sum(owners == agent) for agent in (-1, 0, 1)] == [7, 18, 18]


def test_humanoid_halves():
    found = bodies_by_colour("humanoid_9_8")
    upper, lower = (tuple(colour) for colour in scene.palette(2))
    arms = {f"{side}_{part}_arm" for side in ("left", "right") for part in ("upper", "lower")}
    legs = {f"{side}_{part}" for side in ("left", "right") for part in ("thigh", "shin", "foot")}
    assert found == {
        scene.GREY: {"world", "torso"},
        upper: {"lwaist", "pelvis", *arms},
        lower: legs,
    }


def test_halfcheetah_legs():
    found = bodies_by_colour("halfcheetah_2x3")
    back, front = (tuple(colour) for colour in scene.palette(2))
    assert found[back] == {"bthigh", "bshin", "bfoot"}
    assert found[front] == {"fthigh", "fshin", "ffoot"}
    assert found[scene.GREY] == {"world", "torso"}


def test_a_body_that_several_agents_move_goes_to_the_first_joint():
    model, agents = model_of("humanoid_17x1")
    joint_agent = {joint: i for i, (joint,) in enumerate(agents)}
    owners = scene.body_agents(model, agents)
    assert owners[model.body("right_thigh").id] == joint_agent["right_hip_x"]
    shown = [entry["shown"] for entry in recorded("humanoid_17x1", 2)["legend"]]
    assert not shown[joint_agent["right_hip_y"]] and shown[joint_agent["right_hip_x"]]


def test_colours_of_many_agents_differ():
    colours = np.vstack([scene.palette(24), scene.GREY])
    assert colours.min() >= 0 and colours.max() <= 1
    for one, other in itertools.combinations(colours, 2):
        assert np.abs(one - other).sum() > 0.15
    assert scene.palette(0).shape == (0, 3)


# --- recordings ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ant_4x2", "humanoid_9_8", "reacher_2x1", "manyagent_ant_2x3"])
def test_poses_are_mujocos(name):
    model, agents = model_of(name)
    qpos = motion(model, 5)
    found = scene.record(model, qpos, agents, dt=DT, title=name)
    assert found["positions"].shape == (5, model.ngeom, 3)
    assert found["positions"].dtype == found["quaternions"].dtype == np.float32
    data, matrix = mujoco.MjData(model), np.empty(9)
    for time in range(5):
        data.qpos[:] = qpos[time]
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(found["positions"][time], data.geom_xpos, atol=1e-5)
        for geom in range(model.ngeom):
            mujoco.mju_quat2Mat(matrix, found["quaternions"][time, geom].astype(float))
            np.testing.assert_allclose(matrix, data.geom_xmat[geom], atol=1e-5)


def test_geoms_are_described():
    found = recorded("ant_4x2", 3, rewards=[0.0, 1.0, 2.5])
    model, _ = model_of("ant_4x2")
    assert found["types"] == ["plane", "sphere"] + ["capsule"] * 12
    np.testing.assert_array_equal(found["sizes"], model.geom_size)
    np.testing.assert_array_equal(found["agents"], [-1, -1, *np.repeat(range(4), 3)])
    np.testing.assert_array_equal(found["colours"][2:], np.repeat(scene.palette(4), 3, 0))
    np.testing.assert_array_equal(found["fixed"], [True] + [False] * 13)
    np.testing.assert_array_equal(found["rewards"], [0.0, 1.0, 2.5])
    assert [entry["name"] for entry in found["legend"]] == [f"agent {i}" for i in range(4)]
    assert found["legend"][2]["joints"] == ("hip_3", "ankle_3")
    assert all(entry["shown"] for entry in found["legend"])
    assert (found["dt"], found["title"]) == (DT, "ant_4x2")


def test_the_centre_follows_and_the_radius_holds_the_robot():
    found = recorded("ant_4x2", 60)
    distances = np.linalg.norm(found["positions"][:, 1:] - found["centre"][:, None], axis=-1)
    assert distances.max() < found["radius"] < 4
    middle = found["positions"][20:31, 1:].mean((0, 1))
    np.testing.assert_allclose(found["centre"][25], middle, atol=1e-5)


def test_invisible_geoms_are_left_out():
    model, agents = model_of("ant_4x2")
    model.geom_group[1] = 3
    model.geom_rgba[2, 3] = 0.0
    found = scene.record(model, motion(model, 2), agents, dt=DT, title="")
    assert found["positions"].shape == (2, 12, 3)


def test_a_type_that_no_replay_draws_is_refused():
    model, agents = model_of("ant_4x2")
    model.geom_type[1] = mujoco.mjtGeom.mjGEOM_MESH
    with pytest.raises(ValueError, match="torso_geom"):
        scene.record(model, motion(model, 2), agents, dt=DT, title="")


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sorted(PARTITIONS))
def test_every_robot_can_be_packed(name):
    found = page.pack(recorded(name, 2))
    assert found["floor"] is not None and 0.1 < found["radius"] < 5


def test_views():
    assert scene.view(model_of("ant_4x2")[0]) == (120, -25)
    assert scene.view(model_of("halfcheetah_2x3")[0]) == (90, -10)
    assert scene.view(model_of("swimmer_2x1")[0]) == (90, -65)


# --- the page ------------------------------------------------------------------------------


def decoded(packed, name, dtype, *shape):
    return np.frombuffer(base64.b64decode(packed[name]), dtype).reshape(packed["frames"], *shape)


def test_the_page_holds_the_poses(tmp_path):
    recording = recorded("ant_4x2", 50, rewards=np.arange(50) / 10)
    recording["positions"][:, 1:] += 1000 * np.linspace(0, 1, 50)[:, None, None]
    recording["centre"] += 1000 * np.linspace(0, 1, 50)[:, None]
    packed = embedded(page.write(tmp_path / "episode.html", recording))
    offsets = decoded(packed, "offsets", "<i2", 13, 3) * np.array(packed["scale"])
    positions = decoded(packed, "centre", "<f4", 1, 3) + offsets
    np.testing.assert_allclose(positions, recording["positions"][:, 1:], atol=3e-4)
    quaternions = decoded(packed, "quaternions", "<i2", 13, 4) / 32767
    np.testing.assert_allclose(quaternions, recording["quaternions"][:, 1:], atol=2e-5)
    np.testing.assert_allclose(packed["returns"], np.cumsum(recording["rewards"]), rtol=1e-6)
    assert packed["floor"] == 0


def test_the_page_is_one_file(tmp_path):
    path = page.write(tmp_path / "episode.html", recorded("ant_4x2", 3))
    text = path.read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link[^>]*href=\"(?!data:)| src=", text)
    assert list(tmp_path.iterdir()) == [path]


def test_a_humanoids_thousand_frames_are_small(tmp_path):
    path = page.write(tmp_path / "episode.html", recorded("humanoid_9_8", 1001))
    assert path.stat().st_size < 1e6


def test_a_title_cannot_break_the_page(tmp_path):
    title = "</script><script>alert('__RECORDING__')</script>"
    path = page.write(tmp_path / "episode.html", recorded("ant_4x2", 2, title=title))
    assert embedded(path)["title"] == title
    assert path.read_text().count("<script") == 2


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "episode.html"
    path.write_text("old")
    whole = Path.write_text

    def half(self, text, **options):
        whole(self, text[:100], **options)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space"):
        page.write(path, recorded("ant_4x2", 2))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_none_are_refused(tmp_path):
    path = tmp_path / "episode.html"
    with pytest.raises(ValueError, match="JSON"):
        page.write(path, recorded("ant_4x2", 2, rewards=[0.0, np.nan]))
    assert not path.exists()


# --- in a browser --------------------------------------------------------------------------

LISTEN = """<script>
window.found = [];
addEventListener("error", event => found.push(event.message));
</script>"""

# Lets the page play, then looks at the picture right after it was drawn.
LOOK = """<script>
function colours() {
  const copy = document.createElement("canvas"), { width, height } = canvas;
  Object.assign(copy, { width, height });
  const brush = copy.getContext("2d");
  brush.drawImage(canvas, 0, 0);
  const counts = {}, { data } = brush.getImageData(0, 0, width, height);
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b] = data.subarray(i, i + 3), strong = Math.max(r, g, b) - Math.min(r, g, b) > 60;
    const name = strong ? "strong" : "pale";
    counts[name] = (counts[name] || new Set()).add(r << 16 | g << 8 | b);
  }
  return { strong: counts.strong?.size || 0, pale: counts.pale?.size || 0 };
}
const press = (id, event = "click") => document.getElementById(id).dispatchEvent(new Event(event));
const drag = (kind, id, x, y) => canvas.dispatchEvent(
  new PointerEvent(kind, { pointerId: id, clientX: x, clientY: y, buttons: 1 }));
canvas.setPointerCapture = () => {};  // no such pointer really exists
const result = { started: replay.playing, frames: replay.frames };
function reached(frame, then) {  // calls with the seconds that it took
  const start = performance.now(), from = replay.frame;
  const timer = setInterval(() => {
    if (replay.frame < frame) return;
    clearInterval(timer);
    then(from, (performance.now() - start) / 1000);
  }, 20);
}
reached(3, () => reached(20, (from, seconds) => {
  result.rate = (replay.frame - from) / seconds;
  press("play");
  result.paused = !replay.playing;
  const before = replay.drawn;
  replay.seek(5);
  Object.assign(result, { sought: replay.frame, redrawn: replay.drawn - before, ...colours() });
  result.read = document.getElementById("read").textContent;
  const here = canvas.toDataURL();
  drag("pointerdown", 1, 100, 100); drag("pointermove", 1, 150, 120);
  replay.seek(5);
  const turned = canvas.toDataURL();
  drag("pointerdown", 2, 200, 200); drag("pointermove", 2, 300, 300);
  drag("pointerup", 2, 300, 300); drag("pointerup", 1, 150, 120);
  replay.seek(5);
  result.touched = new Set([here, turned, canvas.toDataURL()]).size === 3;
  press("reset");
  replay.seek(5);
  result.restored = canvas.toDataURL() === here;
  replay.seek(1e9);
  result.last = replay.frame;
  replay.play();
  result.again = replay.frame;
  document.getElementById("speed").value = "4";
  reached(3, () => reached(50, (from, seconds) => {
    result.fast = (replay.frame - from) / seconds;
    replay.pause();
    result.errors = window.found;
    console.log("SELFTEST", JSON.stringify(result), "SELFTEST");
  }));
}));
</script>"""


@pytest.mark.full
@pytest.mark.parametrize("name", ["ant_4x2", "humanoid_9_8", "reacher_2x1"])
def test_the_page_plays(name, opened, tmp_path):
    path = page.write(tmp_path / "episode.html", recorded(name, 100, rewards=np.full(100, 0.5)))
    text = path.read_text().replace("<head>", f"<head>{LISTEN}").replace("</body>", LOOK)
    path.write_text(text)
    found = opened(path, tmp_path)
    assert found["errors"] == []
    assert found["started"] and found["paused"]
    assert found["frames"] == 100
    assert 5 < found["rate"] < 35  # frames per second, 20 but for a slow computer's jumps
    assert found["sought"] == 5 and found["redrawn"] == 1
    assert found["read"].split() == ["0.25", "/", "4.95", "s", "return", "3.0"]
    assert found["strong"] > 20 and found["pale"] > 20  # limbs; floor and sky
    assert found["touched"] and found["restored"]
    assert (found["last"], found["again"]) == (99, 0)
    assert found["fast"] > 1.3 * found["rate"]
