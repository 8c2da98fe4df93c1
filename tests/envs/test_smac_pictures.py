"""Films and pages of recorded battles."""

import json
import re

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

from lorasa_jax.envs.smac import pictures, scene
from lorasa_jax.envs.smac.environment import Smac
from lorasa_jax.envs.smac.maps import Map

STEPS = 6


@pytest.fixture(scope="module")
def recorded():
    """An environment, states [time + 1, ...] and rewards [time] of a few steps."""
    team = {"colossus": 1, "marine": 2, "medivac": 1}
    env = Smac(Map("parade", team, team, 50))
    state, _ = env.reset(jax.random.key(0))
    places = [[12, 14], [12, 16], [12, 17], [10, 16], [18, 14], [16, 16], [16, 17], [20, 16]]
    battle = state.battle.replace(
        unit_positions=jnp.array(places, float), unit_health=state.battle.unit_health * 0.6
    )
    state = state._replace(battle=battle)

    def step(state, key):
        legal = env.battle.legal(state.battle)
        actions = jnp.argmax(legal.astype(jnp.int32) * jnp.arange(legal.shape[-1])[None], axis=-1)
        after, timestep = env.step(key, state._replace(legal=legal), actions)
        return after, (after, timestep.reward)

    _, (states, rewards) = jax.jit(
        lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), STEPS))
    )(state)
    states = jax.tree.map(lambda a, b: np.concatenate([a[None], b]), state, states)
    return env, states, np.asarray(rewards)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_film(recorded, tmp_path, suffix):
    env, states, _ = recorded
    path = env.film(states, tmp_path / f"battle.{suffix}")
    assert path.stat().st_size > 1000 and list(tmp_path.iterdir()) == [path]
    if suffix == "gif":
        with Image.open(path) as image:
            assert image.n_frames == STEPS + 1


@pytest.mark.full
def test_frames_show_who_lives_and_who_acts(recorded):
    env, states, _ = recorded
    battle, shown = states.battle, scene.of_smac(env, states)
    assert battle.unit_acted.any() and battle.unit_acted[:, 3].any(), "shots and healing"
    images = list(pictures.frames(shown))
    assert len(images) == STEPS + 1 and images[0].dtype == np.uint8
    assert images[0].shape == (720, 1280, 3)
    shades = pictures.colours(shown)
    assert len(set(shades)) == env.battle.num_agents

    def holds(image, colour):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return (np.abs(image.astype(int) - rgb).max(-1) <= 2).any()

    for i, shade in enumerate(shades):
        assert holds(images[0], shade) == bool(battle.unit_alive[0, i])
    assert not holds(images[0], pictures.SHOT)
    fired = np.flatnonzero((battle.unit_acted & ~env.battle.roster.healer).any(1))
    assert holds(images[fired[0]], pictures.SHOT)


def test_a_film_does_not_depend_on_how_a_notebook_set_matplotlib(recorded):
    env, states, _ = recorded
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        assert next(pictures.frames(scene.of_smac(env, states))).any()


def test_replay_is_one_page_with_everything(recorded, tmp_path):
    env, states, rewards = recorded
    path = env.replay(states, rewards, tmp_path / "battle.html", title="a <b> & 'c'")
    text = path.read_text()
    assert "http" not in text and "__RECORDING__" not in text
    inside = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S).group(1)
    assert "<" not in inside
    data = json.loads(inside)
    assert data["title"] == "a <b> & 'c'"
    assert [unit["name"] for unit in data["units"][:4]] == list(env.agents)
    assert np.shape(data["x"]) == np.shape(data["acts"]) == (STEPS + 1, 8)
    np.testing.assert_allclose(data["returns"], [0, *np.cumsum(rewards)], atol=1e-3)
    np.testing.assert_allclose(data["x"], states.battle.unit_positions[..., 0], atol=1e-3)
    assert all(value == -1 for row in data["shields"] for value in row[1:4])
    assert all(0 <= value <= 1 for row in data["energy"] for value in (row[3], row[7]))
    acts = np.array(data["acts"])
    assert ((acts >= 0) == states.battle.unit_acted).all()
    assert data["allies"] == 4 and data["seconds"] == 0.5
