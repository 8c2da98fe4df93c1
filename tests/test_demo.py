"""Policies that lie in the package: their cards, their replays, and how they are made."""

import gzip
import json
import re

import numpy as np
import pytest

import lorasa_jax
from experiments import ship
from lorasa_jax import config, demo, evaluate, run
from lorasa_jax.errors import ConfigError

NAMES = demo.names()


def recording(text):
    return json.loads(re.search(r'id="recording"[^>]*>(.*?)</script>', text, re.S)[1])


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", NAMES)
def test_a_policy_of_the_package_is_light_and_says_what_it_is(name):
    folder, card = demo.folder(name), demo.card(name)
    for path in folder.iterdir():
        assert path.stat().st_size <= (300_000 if path.name == demo.REPLAY else ship.LARGEST)
    found = card["evaluation"]
    assert found["episodes"] >= 100
    assert found["interval"][0] <= found["mean"] <= found["interval"][1]
    said = (folder / "README.md").read_text()
    for word in (
        card["env"],
        card["preset"],
        card["sharing"],
        card["command"],
        f"{found['mean']:,.0f}",
    ):
        assert word in said
    config.load(card["command"].split()[3:])  # which refuses what could not be run


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", NAMES)
def test_a_policy_of_the_package_acts_in_single_precision(name):
    policy = lorasa_jax.load(demo.folder(name))
    card = demo.card(name)
    assert (policy.env_name, policy.seed, policy.step) == (card["env"], card["seed"], card["step"])
    env, carry = policy.env(), policy.initial_carry(2)
    obs = np.zeros((2, env.num_agents, env.observation_size), np.float32)
    _, actions = policy.act(obs, carry, np.ones(2, bool))
    assert actions.dtype == np.float32 and np.isfinite(actions).all()


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_episode_is_one_of_its_card(name, tmp_path, capsys):
    path = tmp_path / "page.html"
    demo.main([name, f"to={path}", "browser=false"])
    said = capsys.readouterr().out
    card = demo.card(name)
    assert str(path) in said and demo.sentence(card) in said
    returns = recording(path.read_text())["returns"]
    found = card["evaluation"]
    assert abs(returns[-1] - found["mean"]) < 4 * found["std"]


@pytest.mark.sample(10)
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("ant")])
def test_the_shipped_ant_walks_for_a_thousand_steps(name, opened, tmp_path):
    """In a browser, which says nothing else on its console."""
    path = tmp_path / "page.html"
    demo.demo(demo.Options(name=name, to=str(path)))
    script = """<script>
    const timer = setInterval(() => {
      const replay = window.replay;
      if (!replay || replay.frame < 3 || replay.drawn < 3) return;
      clearInterval(timer);
      console.log("SELFTEST", JSON.stringify({frames: replay.frames}), "SELFTEST");
    }, 20);
    </script></body>"""
    text = path.read_text()
    path.write_text(text.replace("</body>", script))
    assert opened(path, tmp_path) == {"frames": 1001}
    assert recording(text)["returns"][-1] > 2 * 1000, "one that stands still earns 1,000"


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_evaluating_again_agrees_with_the_card(name):
    card = demo.card(name)["evaluation"]
    policy = lorasa_jax.load(demo.folder(name))
    options = evaluate.Options(episodes=card["episodes"], seed=card["seed"] + 1)
    (found,) = evaluate.results_of((policy,), options)
    one, other = card["interval"], found["interval"]
    assert one[0] <= other[1] and other[0] <= one[1], "intervals of other episodes overlap"


def test_a_policy_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        demo.main(["ant_4x3"])
    assert left.value.code == 2
    assert "name=ant_4x3 is no policy of this package; did you mean ant_4x2?" in (
        capsys.readouterr().err
    )


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="give a file in a folder that exists"):
        demo.demo(demo.Options(to=str(tmp_path / "no" / "page.html")))


@pytest.mark.parametrize("display", ["", ":0"])
def test_the_page_is_opened_where_there_is_a_browser(display, monkeypatch, tmp_path, capsys):
    opened = []
    monkeypatch.setattr(demo.sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(demo.webbrowser, "get", lambda: None)
    monkeypatch.setattr(demo.webbrowser, "open", lambda address: opened.append(address) or True)
    path = tmp_path / "page.html"
    demo.main([f"to={path}"])
    assert opened == ([path.as_uri()] if display else [])
    assert ("open this page in a browser" in capsys.readouterr().out) == (not display)


@pytest.mark.full
@pytest.mark.parametrize("sharing, files", [("ps", 1), ("nps", 4)])
def test_a_run_becomes_a_policy_of_the_package(sharing, files, tmp_path, monkeypatch):
    """Agents of equal weights share a file; what is loaded is what was learned, rounded."""
    out = tmp_path / "run"
    run.execute(
        config.load([
            "env=ant_4x2", f"sharing={sharing}", "num_seeds=2", "algo.num_envs=2",
            "algo.rollout_length=5", "algo.chunk_length=5", "network.hidden=8", "network.kind=ff",
            "total_steps=10", "eval_episodes=1", f"out={out}",
        ])
    )  # fmt: skip
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "pretrained")
    folder = ship.ship(str(out), "tiny", ship.Options(policy=1, episodes=10))
    assert demo.names() == ["tiny"] and [path.name for path in demo.FOLDER.iterdir()] == ["tiny"]
    assert len(list(folder.glob("*.safetensors"))) == files
    card = demo.card("tiny")
    assert (
        card["seed"] == 1 and list(card["other_seeds"]) == ["0"] and "out=" not in card["command"]
    )
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.json"))
    assert recording(gzip.decompress((folder / demo.REPLAY).read_bytes()).decode())["frames"] > 1
    before, after = lorasa_jax.load(out, seed=1), lorasa_jax.load(folder)
    obs = np.random.default_rng(0).normal(size=(3, 4, before.env().observation_size))
    actions = [p.act(obs, p.initial_carry(3), np.ones(3, bool))[1] for p in (before, after)]
    np.testing.assert_allclose(actions[0], actions[1], atol=5e-3)
    with pytest.raises(ConfigError, match="policy"):
        ship.ship(str(out), "tiny", ship.Options())
