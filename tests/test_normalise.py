"""Running statistics: numpy's over the same data; the same in checkpoints, plays and exports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax import evaluate
from lorasa_jax.envs import make
from lorasa_jax.envs.normalise import Moments, combined, normalised, nothing_seen, showing
from lorasa_jax.export import command
from lorasa_jax.export.policy import load
from lorasa_jax.learn import observed, rollout
from lorasa_jax.learn.team import forward
from lorasa_jax.training import execution, phases, runs
from lorasa_jax.training.teams import build_teams

SMALL = [
    "env=reacher_2x1", "env.engine=native", "env.normalise=running", "network.kind=ff",
    "network.hidden=4", "algo.num_envs=2", "algo.rollout_length=10", "algo.epochs=1",
    "eval_episodes=2", "eval_every=1", "checkpoint_every=1", "sharing.rank=2",
]  # fmt: skip


def test_parts_combine_to_the_whole():
    rng = np.random.default_rng(0)
    data = rng.normal(3.0, 2.0, (60, 4)).astype(np.float32)
    seen = Moments(jnp.zeros(()), jnp.zeros(4), jnp.ones(4))
    for part in np.split(data, [7, 8, 40]):
        seen = combined(seen, Moments(jnp.float32(len(part)), part.mean(0), part.var(0)))
    assert seen.count == 60
    np.testing.assert_allclose(seen.mean, data.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen.variance, data.var(0), rtol=1e-5)
    shown = (data - data.mean(0)) / data.std(0)
    np.testing.assert_allclose(normalised(seen, data), shown, rtol=1e-4, atol=1e-5)


def test_nothing_seen_changes_nothing_but_what_is_far_out():
    env = make("reacher_2x1", normalise="running")
    x = jnp.float32([-11.0, *range(env.observation_size - 1)])
    shown = normalised(nothing_seen(env).obs, x)
    np.testing.assert_allclose(shown, np.clip(x, -10, 10), rtol=1e-6)


@pytest.mark.parametrize("counted", [1.0, 0.5])
def test_moments_are_numpys_over_what_is_counted(counted):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 3, 2, 4)).astype(np.float32)
    active = rng.uniform(size=(5, 3, 2)) < counted
    found = observed.moments(jnp.asarray(x), jnp.asarray(active), configuration_devices())
    assert int(found.count) == active.sum()
    np.testing.assert_allclose(found.mean, x[active].mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.variance, x[active].var(0), rtol=1e-4)


def configuration_devices():
    return configuration.load([*SMALL, "total_steps=40", "switch_at=20"]).algo_of(-1)


def test_an_environment_shows_what_a_finished_policy_sees():
    env = make("reacher_2x1", normalise="running")
    statistics = nothing_seen(env)
    statistics = statistics._replace(obs=statistics.obs._replace(mean=statistics.obs.mean + 0.25))
    key = jax.random.key(0)
    raw = jax.jit(env.reset)(key)[1].obs
    seen = jax.jit(showing(env, statistics).reset)(key)[1].obs
    np.testing.assert_allclose(seen, np.clip(raw - 0.25, -10, 10), rtol=1e-5, atol=1e-6)
    assert showing(env, None) is env


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two phases of two updates each, whole and interrupted in each update."""
    out = tmp_path_factory.mktemp("normalise") / "run"
    words = [*SMALL, "total_steps=80", "switch_at=40", f"out={out}", "keep_at=[20,40,60]"]
    execution.execute(configuration.load(words))
    return out


@pytest.mark.full
def test_a_runs_statistics_are_numpys_over_its_trajectories(run):
    """The trajectories are played again from the kept checkpoints' states."""
    config = runs.configured(run)
    start = jax.tree.map(lambda x: x[0], phases.begin(config, build_teams(config)[0]))
    states = [start.state] + [lorasa_jax.load(run, step).state() for step in (20, 40)]
    team, hp = build_teams(config)[0], config.algo_of(0)

    @jax.jit
    def trajectory(state):
        _, key = jax.random.split(state.key)
        return rollout.collect(key, team, state, hp)[1].transitions

    seen = [trajectory(state) for state in states[:2]]
    for name in ("obs", "state"):
        data = np.concatenate([np.asarray(getattr(x, name)) for x in seen])
        data = data.reshape(-1, data.shape[-1])
        found = getattr(states[2].observed, name)
        assert found.count == len(data)
        np.testing.assert_allclose(found.mean, data.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.variance, data.var(0), rtol=1e-3, atol=1e-6)


@pytest.mark.full
def test_statistics_freeze_with_the_backbone(run):
    at = [lorasa_jax.load(run, step).statistics for step in (20, 40, 60, 80)]
    jax.tree.map(np.testing.assert_array_equal, *at[1:3])
    jax.tree.map(np.testing.assert_array_equal, *at[2:4])
    assert at[0].obs.count < at[1].obs.count


@pytest.mark.full
def test_exports_and_evaluations_see_what_training_saw(run, tmp_path):
    trained = lorasa_jax.load(run)
    tensors = tmp_path / "tensors"
    command.export(command.parse([f"out={run}", f"to={tensors}", "format=safetensors"]))
    policy, again = load(tensors), lorasa_jax.load(tensors)
    np.testing.assert_allclose(policy.weights[0]["normalise.mean"], trained.statistics.obs.mean)
    key = jax.random.key(3)
    _, raw = trained.env().reset(key)
    _, shown = trained.seeing_team.env.reset(key)
    _, from_export = again.seeing_team.env.reset(key)
    np.testing.assert_allclose(from_export.obs, shown.obs, rtol=1e-4, atol=1e-5)
    first = jnp.zeros((1, 1), bool)
    network, carry = trained.team.actor.network, trained.initial_carry(1)
    _, outputs = forward(
        network, trained.weights, carry, shown.obs[None, None], first, agent_axis=2
    )
    _, mine = policy.outputs(np.asarray(raw.obs)[None], policy.initial_carry(1), np.zeros(1, bool))
    np.testing.assert_allclose(mine["mean"][0], outputs["mean"][0, 0], rtol=1e-4, atol=1e-5)
    options = [evaluate.parse([f"out={x}", "episodes=3"]) for x in (run, tensors)]
    one, other = (evaluate.evaluate(x)["policies"][0] for x in options)
    assert one["mean"] == pytest.approx(other["mean"], rel=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_other_formats_normalise_too(kind, run, tmp_path):
    pytest.importorskip("onnxruntime" if kind == "onnx" else "flatbuffers")
    tensors, other = tmp_path / "tensors", tmp_path / kind
    for to, name in ((tensors, "safetensors"), (other, kind)):
        command.export(command.parse([f"out={run}", f"to={to}", f"format={name}"]))
    policy = load(tensors)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(5, 2, policy.card["observation_size"])).astype(np.float32)
    carry, first = policy.initial_carry(5), np.zeros(5, bool)
    _, expected = policy.outputs(obs, carry, first)
    file = next(other.glob(f"*0.{kind}"))
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file))
        found = session.run(["mean"], {"obs": obs[:, 0], "carry": carry[:, 0], "first": first})[0]
    else:
        step = jax.export.deserialize(bytearray(file.read_bytes())).call
        found = step(carry[:, 0], obs[:, 0], first)[1]["mean"]
    np.testing.assert_allclose(found, expected["mean"][:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_adapters_know_their_backbones_statistics(run, tmp_path):
    from lorasa_jax.export.policy import with_adapters

    for to, words in (("net", ["step=40"]), ("adapters", ["format=adapters"]), ("whole", [])):
        command.export(command.parse([f"out={run}", f"to={tmp_path / to}", *words]))
    merged = with_adapters(load(tmp_path / "net"), tmp_path / "adapters")
    whole = load(tmp_path / "whole")
    for ours, theirs in zip(merged.weights, whole.weights, strict=True):
        for name, x in theirs.items():
            np.testing.assert_allclose(ours[name], x, rtol=1e-5, atol=1e-6)
