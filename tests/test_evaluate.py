"""Evaluating and filming finished runs: tiny ones that were trained for one update."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from lorasa_jax import config as configuration
from lorasa_jax import envs, episodes, evaluate, run
from lorasa_jax.envs.mamujoco import environment, pictures
from lorasa_jax.envs.wrappers import ObservationWrapper
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import play
from lorasa_jax.policy.networks import parameters
from lorasa_jax.training import runs
from lorasa_jax.training.teams import build_teams

TINY = [
    "sharing=ps", "algo.num_envs=2", "algo.rollout_length=5", "algo.chunk_length=5",
    "algo.epochs=1", "network.hidden=8", "network.kind=ff", "total_steps=10", "eval_every=1",
    "eval_episodes=2",
]  # fmt: skip
KEY = jax.random.key(0)
LIMIT = 12  # steps of what is filmed


def evaluated(out, *overrides):
    """Trains a run, evaluates and films it by the command; what evaluation.json holds."""
    run.execute(configuration.load([*TINY, *overrides, f"out={out}"]))
    evaluate.main([f"out={out}", "render=true", "format=gif", "episodes=2"])
    found = json.loads((out / "evaluation.json").read_text())
    assert found["pictures"] == [str(out / "episode.gif"), str(out / "episode.html")]
    assert found["step"] == 10 and found["episodes"] == 2
    return found


def pictures_in(path):
    with Image.open(path) as image:
        return image.n_frames


def page(path):
    """The recording inside a page."""
    inside = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>',
                       path.read_text(), re.S)  # fmt: skip
    return json.loads(inside[1])


def untrained(*overrides):
    """The policy of a run that never learned."""
    config = configuration.load([*TINY, *overrides])
    (team,) = build_teams(config)
    actor = team.actor
    banks = actor.scheme.init(KEY, lambda key: parameters(actor.network, key, actor.features))
    return runs.policy_of(config, team, 0, banks, seed=0, step=0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_map_is_played_and_filmed(tmp_path):
    found = evaluated(tmp_path / "run", "env=smac_2s3z", f"env.max_steps={LIMIT}")
    (row,) = found["policies"]
    assert row["win_rate"] == 0 and row["length"] == LIMIT and row["policy"] == 0
    assert pictures_in(tmp_path / "run" / "episode.gif") == LIMIT + 1
    recording = page(tmp_path / "run" / "episode.html")
    assert len(recording["x"]) == len(recording["returns"]) == LIMIT + 1
    assert recording["title"] == "smac_2s3z, ps, step 10"


@pytest.fixture
def short(monkeypatch):
    """Robots walk LIMIT steps; a skip where none can be drawn."""
    robot = envs.make("halfcheetah_2x3", engine="native", agent_ids=False)
    try:
        next(pictures.frames(robot.model, robot.partition, robot.model.qpos0[None]))
    except ConfigError as error:
        pytest.skip(str(error))
    limit = property(lambda self: LIMIT, lambda self, steps: None)
    monkeypatch.setattr(environment.MultiAgentMujoco, "max_steps", limit, raising=False)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_robot_is_played_and_filmed(short, tmp_path):
    found = evaluated(tmp_path / "run", "env=halfcheetah_2x3")
    (row,) = found["policies"]
    assert "win_rate" not in row and row["length"] == LIMIT
    assert pictures_in(tmp_path / "run" / "episode.gif") == LIMIT + 1
    recording = page(tmp_path / "run" / "episode.html")
    assert recording["frames"] == len(recording["returns"]) == LIMIT + 1


@pytest.mark.long
@pytest.mark.upstream
def test_upstreams_maps_are_filmed_too(tmp_path):
    """Lines of fire are drawn to those who lose health, and to nobody else."""
    limits = "env.walls_cause_death=false", f"env.max_steps={2 * LIMIT}"
    policy = untrained("env=smax_3m", *limits)
    options = evaluate.Options(out=str(tmp_path), render=True, format="gif")
    video, html = evaluate.render(options, policy)
    recording = page(html)
    length = len(recording["x"]) - 1
    assert LIMIT < length <= 2 * LIMIT and pictures_in(video) == length + 1
    assert recording["map"] == {"low": [0, 0], "high": [32, 32]} and recording["seconds"] == 0.5
    assert [unit["name"] for unit in recording["units"]][2:4] == ["ally_2", "enemy marine"]
    health, acts = np.array(recording["health"]), np.array(recording["acts"])
    assert (acts[0] == -1).all() and (health[0] == 1).all()
    for t in range(1, length + 1):
        hurt = set(np.flatnonzero(health[t] < health[t - 1]))
        assert hurt == set(acts[t][acts[t] >= 0]), t
    assert (acts[:, 3:] >= 0).any(), "the enemy shot at someone"


@pytest.mark.sample(1)
@pytest.mark.upstream
@pytest.mark.parametrize("name", ["jaxmarl_MPE_simple_spread_v3", "specialisation_2"])
def test_what_has_no_pictures_is_refused(name, tmp_path):
    policy = SimpleNamespace(env_name=name, env=lambda: envs.make(name))
    with pytest.raises(ConfigError) as refusal:
        evaluate.render(evaluate.Options(out=str(tmp_path), render=True), policy)
    assert str(refusal.value) == f"env={name} has no pictures; leave out render."
    assert not list(tmp_path.iterdir())


class Patient(ObservationWrapper):
    """An environment that could last longer than it does."""

    max_steps = 13

    def view(self, timestep):
        return timestep


def test_a_recorded_episode_is_one_that_is_played():
    """A game without chance, which ends by itself before its limit, is the same both times."""
    policy = untrained("env=specialisation_2")
    team, weights = policy.team._replace(env=Patient(policy.env())), policy.weights
    results = jax.jit(lambda: play.play(KEY, team, weights, episodes=2))()
    recording = jax.jit(lambda: play.record(KEY, team, weights))()
    assert len(recording.rewards) == 13 and recording.length == 10
    np.testing.assert_array_equal(results.lengths, [10, 10])
    np.testing.assert_allclose(results.returns, np.sum(recording.rewards[:10]), rtol=1e-6)
    steps = np.asarray(recording.states.steps)
    np.testing.assert_array_equal(steps, np.minimum(np.arange(14), 10))


@pytest.mark.parametrize("episodes, told", [(1, False), (2, False), (9, False), (10, True)])
def test_an_interval_is_told_of_ten_episodes_or_more(episodes, told, capsys):
    returns = np.arange(float(episodes))
    row = {"policy": 3, "length": 10.0, **evaluate.statistics_of(returns)}
    assert (row["interval"] is not None) == told
    assert json.loads(json.dumps(row)) == row
    evaluate.show({
        "env": "x", "step": 1, "episodes": episodes, "actions": "greedy", "policies": [row],
    })  # fmt: skip
    line = next(line for line in capsys.readouterr().out.splitlines() if "seed 3" in line)
    assert (" to " in line) == told and (" - " in line) != told


def test_films_of_others_environments_need_not_take_rewards(tmp_path, monkeypatch):
    """Those that take them get rewards and title; a film of states and path alone still works."""
    seen = []

    class Old:
        def film(self, states, path):
            seen.append((states, path))

        def replay(self, states, rewards, path, *, title):
            seen.append(title)

    class New(Old):
        def film(self, states, path, *, rewards=None, title=""):
            seen.append((states, path, rewards, title))

    policy = SimpleNamespace(env_name="x", sharing="ps", step=7, env=Old)
    monkeypatch.setattr(episodes, "episode", lambda *_: ("states", "rewards"))
    options = evaluate.Options(out=str(tmp_path), render=True)
    evaluate.render(options, policy)
    policy.env = New
    evaluate.render(options, policy)
    video = tmp_path / "episode.mp4"
    title = "x, ps, step 7"
    assert seen == [("states", video), title, ("states", video, "rewards", title), title]
