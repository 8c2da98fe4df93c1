import numpy as np
import pytest
from PIL import Image

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import pictures
from lorasa_jax.envs.mamujoco.replay import scene
from lorasa_jax.envs.video import SIZE, Captions, frame_stride, write_video
from lorasa_jax.errors import ConfigError


@pytest.mark.parametrize(
    "dt, stride, rate", [(0.05, 1, 20.0), (0.008, 4, 31.25), (0.015, 2, 33.3333), (0.5, 1, 2.0)]
)
def test_videos_run_in_real_time_at_about_thirty_pictures_a_second(dt, stride, rate):
    every, per_second = frame_stride(dt)
    assert every == stride
    assert per_second == pytest.approx(rate, rel=1e-4)


def test_a_gif_holds_every_frame(tmp_path):
    frames = (np.full((20, 30, 3), 12 * i, np.uint8) for i in range(5))
    path = write_video(tmp_path / "x.gif", frames, rate=10.0)
    with Image.open(path) as image:
        assert (image.n_frames, image.size) == (5, (30, 20))
        assert image.info["duration"] == 100
    assert [child.name for child in tmp_path.iterdir()] == ["x.gif"]


def test_a_gif_keeps_the_colours_it_is_told_to_keep(tmp_path):
    """A few pixels of an agent's colour in a picture of many others."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (90, 120, 3), np.uint8)
    colours = [(0, 114, 178), (230, 159, 0), (0, 158, 115)]
    for i, colour in enumerate(colours):
        frame[5, 5 + i] = colour
    path = write_video(tmp_path / "x.gif", iter([frame, frame]), rate=10.0, colours=colours)
    with Image.open(path) as image:
        shown = np.asarray(image.convert("RGB"))[5, 5:8]
    assert np.abs(shown.astype(int) - np.array(colours)).max() <= 12


def test_captions_stand_in_the_corners_of_every_frame():
    legend = [(f"agent {i}", (10 * i, 0, 255)) for i in range(40)]
    captions = Captions("a title", legend, ["1 s   return 5", "2 s   return 6"])
    ground = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    first, second = (captions.on(ground, i) for i in range(2))
    assert first.shape == ground.shape and (ground == 90).all()
    assert (first[:, :400] == second[:, :400]).all() and (first[:, -400:] != second[:, -400:]).any()
    assert (first[:90, :200] != ground[:90, :200]).any()
    middle = first[100:, 500:-500]
    assert (middle == ground[100:, 500:-500]).all(), "the legend leaves the picture free"


def test_an_mp4_is_written_and_nothing_else_is_left(tmp_path):
    frames = (np.random.default_rng(i).integers(0, 255, (64, 96, 3), np.uint8) for i in range(8))
    path = write_video(tmp_path / "x.mp4", frames, rate=20.0)
    assert b"ftyp" in path.read_bytes()[:32]
    assert [child.name for child in tmp_path.iterdir()] == ["x.mp4"]


def test_a_video_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.gif"
    path.write_bytes(b"old")

    def broken():
        yield np.zeros((20, 30, 3), np.uint8)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_video(path, broken(), rate=10.0)
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["x.gif"]


@pytest.fixture(scope="module")
def ant():
    return envs.make("ant_4x2", engine="native")


@pytest.fixture(scope="module")
def drawn(ant):
    """Three pictures of an Ant that walks off, or a skip where nothing can be drawn."""
    qpos = np.tile(ant.model.qpos0, (3, 1))
    qpos[:, 0] = [0.0, 5.0, 10.0]
    try:
        return list(pictures.frames(ant.model, ant.partition, qpos))
    except ConfigError as error:
        pytest.skip(str(error))


def test_limbs_have_their_agents_colours(ant, drawn):
    """Every agent's hue covers some of the picture; the camera follows the robot."""
    colours = scene.body_colours(ant.model, ant.partition.agents)
    limbs = {tuple(colour) for colour in colours} - {tuple(colours[1])}
    assert len(limbs) == 4
    for picture in drawn:
        assert picture.shape == (720, 1280, 3) and picture.dtype == np.uint8
        pixels = picture.reshape(-1, 3) / 255.0
        strong = pixels[np.ptp(pixels, axis=1) > 0.25]
        hues = strong / np.linalg.norm(strong, axis=1, keepdims=True)
        for colour in limbs:
            wanted = np.array(colour) / np.linalg.norm(colour)
            assert (hues @ wanted > 0.97).sum() > 20


def test_drawing_leaves_the_model_as_it_was(ant, drawn):
    fresh = envs.make("ant_4x2", engine="native").model
    np.testing.assert_array_equal(ant.model.geom_rgba, fresh.geom_rgba)
    np.testing.assert_array_equal(ant.model.geom_matid, fresh.geom_matid)


def test_without_opengl_it_says_what_to_install(ant, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mujoco.egl", None)
    monkeypatch.setitem(__import__("sys").modules, "mujoco.osmesa", None)
    with pytest.raises(ConfigError, match=r"install libegl1 or libosmesa6 \(or leave out render\)"):
        next(pictures.frames(ant.model, ant.partition, ant.model.qpos0[None]))
