"""`lorasa_jax.load`: runs and exports act alike, by step and by seed; errors in one sentence."""

import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lorasa_jax
from lorasa_jax import config as configuration
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import command
from lorasa_jax.export import policy as reader
from lorasa_jax.training import execution

SEEDS = (3, 4)
COMMON = [
    "algo.num_envs=2", "algo.rollout_length=10", "algo.epochs=1", "algo.actor_lr=0.05",
    "network.hidden=4", "network.depth=1",
    "sharing.rank=2", "total_steps=80", "switch_at=40", "eval_every=1",
    "eval_episodes=2", "checkpoint_every=1", "num_seeds=2", f"seed={SEEDS[0]}", "keep_at=[20]",
]  # fmt: skip
RUNS = {
    "normalised": [
        "env=reacher_2x1", "env.engine=native", "env.normalise=running", "network.kind=ff",
    ],
    "discrete": ["env=specialisation_2", "network.kind=gru"],
}  # fmt: skip
KEY = jax.random.key(0)
pytestmark = [pytest.mark.sample(1)]


@pytest.fixture(scope="module", params=RUNS)
def trained(request, tmp_path_factory):
    """(run, {seed: its export}): two seeds with adapters, kept at steps 20, 40 and 80."""
    folder = tmp_path_factory.mktemp(request.param)
    run = folder / "run"
    execution.execute(configuration.load([*COMMON, *RUNS[request.param], f"out={run}"]))
    exports = {}
    for seed in SEEDS:
        exports[seed] = folder / str(seed)
        command.export(command.Options(str(run), policy=seed, to=str(exports[seed])))
    return run, exports


@pytest.fixture(scope="module")
def run(trained):
    return trained[0]


@pytest.fixture(scope="module")
def policies(run):
    """{seed: the run's policy}"""
    return {seed: lorasa_jax.load(run, seed=seed) for seed in SEEDS}


def inputs(policy, *shape):
    """Observations, recurrent states, beginnings and legal actions [*shape, ...]."""
    rng = np.random.default_rng(1)
    env = policy.env()
    agents = (*shape, env.num_agents)
    obs = rng.normal(0.5, 2.0, (*agents, env.observation_size)).astype(np.float32)
    carry = rng.normal(size=policy.initial_carry(*shape).shape).astype(np.float32)
    width = getattr(env.action_space, "n", None) or env.action_space.size
    legal = rng.random((*agents, width)) < 0.6
    legal[..., -1] = True
    return obs, carry, rng.random(shape) < 0.5, legal


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_its_export_and_the_exports_reader_act_alike(trained, policies, seed):
    """All take the environment's own observations, where policies see them normalised too."""
    _, exports = trained
    policy, exported = policies[seed], lorasa_jax.load(exports[seed])
    given = inputs(policy, 5)
    wanted = policy.act(*given)
    close(exported.act(*given), wanted)
    close(reader.load(exports[seed]).act(*given), wanted)
    (other,) = (policies[one].act(*given) for one in SEEDS if one != seed)
    assert not all(map(np.allclose, other, wanted)), "seeds differ"


def test_its_environment_is_what_it_acts_on(policies):
    """One step of what its networks read is one of `act` on what `env()` shows."""
    policy = policies[4]
    env, carry = policy.env(), policy.initial_carry()
    state, timestep = env.reset(KEY)
    carry, action = policy.act(timestep.obs, carry, True, timestep.legal)
    _, shown = policy.seeing_team.env.reset(KEY)
    sees_otherwise = not np.allclose(shown.obs, timestep.obs)
    assert sees_otherwise == (policy.statistics is not None)
    network, (tree, axes) = policy.team.actor.network, policy.weights
    for agent in range(env.num_agents):
        params = jax.tree.map(
            lambda axis, x, i=agent: x if axis is None else x[i], axes, tree,
            is_leaf=lambda axis: axis is None,
        )  # fmt: skip
        zeros, begins = network.initial_carry(), jnp.ones(1, bool)
        after, outputs = network.apply({"params": params}, zeros, shown.obs[None, agent], begins)
        np.testing.assert_allclose(carry[agent], after, rtol=1e-5, atol=1e-5)
        output = {name: x[0] for name, x in outputs.items()}
        best = policy.team.distribution.mode(output, timestep.legal[agent])
        close([action[agent]], [policy.team.distribution.to_env(best)])
    _, timestep = env.step(KEY, state, action)
    assert np.isfinite(timestep.reward)


def test_any_leading_axes_numpy_or_jax_compiled_or_not(policies):
    policy = policies[3]
    many = inputs(policy, 2, 3)
    wanted = policy.act(*many)
    close(jax.jit(policy.act)(*map(jnp.asarray, many)), wanted)
    one = policy.act(*(x[1, 2] for x in many))
    close(one, [x[1, 2] for x in wanted])
    everything = np.ones_like(many[3])
    close(policy.act(*many[:3]), policy.act(*many[:3], everything))
    assert policy.initial_carry(7, 2).shape[:3] == (7, 2, 2) and not policy.initial_carry().any()


def test_other_shapes_are_refused(policies):
    policy = policies[3]
    obs, carry, first, legal = inputs(policy, 3)
    size = policy.env().observation_size
    with pytest.raises(ValueError, match=rf"obs \[3, 2, 1\] must be \[\.\.\., 2 agents, {size}\]"):
        policy.act(obs[..., :1], carry, first, legal)
    with pytest.raises(ValueError, match=r"carry \[2, 2, \d\] must be"):
        policy.act(obs, carry[:2], first, legal)


def test_what_it_says_of_itself(trained):
    run, exports = trained
    policies = lorasa_jax.load_all(run)
    assert [policy.seed for policy in policies] == list(SEEDS) == list(policies[0].seeds)
    exported = lorasa_jax.load(exports[4])
    for policy in (*policies, exported):
        assert policy.env_name == policies[0].config.env["name"]
        assert (policy.algo, policy.sharing) == ("mappo", "ps_lora")
        assert (policy.step, policy.phase) == (80, "finetune")
        assert policy.team.env is policy.env() and policy.env().num_agents == 2
    assert policies[0].out == str(run) and exported.out == str(exports[4])
    assert set(policies[0].banks) == {"net", "adapters"}
    assert policies[0].team.actor.scheme.adapts and policies[0].config.total_steps == 80
    assert exported.seeds == (4,) and exported.step == 80
    assert (exported.config, exported.banks, exported.state) == (None, None, None)
    assert lorasa_jax.load_all(exports[4])[0].seed == 4


def test_weights_are_what_schemes_give_and_a_seeds_state_is_its_own(policies):
    policy = policies[4]
    tree, axes = policy.weights
    assert axes["linear_1"] == {"kernel": 0, "bias": None}
    assert tree["linear_1"]["kernel"].shape == (2, policy.env().observation_size, 4)
    state = policy.state()
    jax.tree.map(np.testing.assert_array_equal, state.actor.banks, policy.banks)
    merged = policy.team.actor.scheme.weights(state.actor.banks)[0]
    jax.tree.map(np.testing.assert_array_equal, merged, tree)


def test_by_step(run):
    steps = {step: lorasa_jax.load(run, step, 3) for step in (20, 40, 80)}
    assert [policy.step for policy in steps.values()] == [20, 40, 80]
    assert [policy.phase for policy in steps.values()] == ["pretrain", "pretrain", "finetune"]
    kernels = [policy.banks["net"]["linear_1"]["kernel"] for policy in steps.values()]
    assert (kernels[0] != kernels[1]).any()
    np.testing.assert_array_equal(kernels[1], kernels[2])
    assert lorasa_jax.load(run, seed=3).step == 80


@pytest.mark.parametrize(
    "step, seed, told",
    [
        (None, None, "holds a policy for each of the seeds 3, 4; add seed=SEED."),
        (None, 5, "seed=5 is not a seed of this run; choose from 3, 4."),
        (30, 3, "has no checkpoint at step 30; those it has are at 20, 40, 60, 80."),
        (1.5, 3, "step=1.5 must be a whole number."),
    ],
)
def test_what_a_run_has_not_is_refused(run, step, seed, told):
    refused(told, run, step, seed)


def test_what_an_export_has_not_is_refused(trained):
    _, exports = trained
    refused("is an export of step 80; drop step.", exports[4], 40)
    refused("seed=3 is not a seed of this run; choose from 4.", exports[4], 80, 3)


def test_folders_without_a_policy_are_refused(trained, tmp_path):
    refused("holds no run; give the folder that a run printed.", tmp_path / "nowhere")
    shutil.copytree(trained[1][3], tmp_path / "copy")
    file = tmp_path / "copy" / "agent_0.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused("agent_0.safetensors", tmp_path / "copy")


def refused(told, *arguments):
    with pytest.raises(ConfigError) as refusal:
        lorasa_jax.load(*arguments)
    text = str(refusal.value)
    assert told in text and "\n" not in text and text[-1] == "."


def test_an_unfinished_run_is_loaded_where_it_is(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / "4")
    assert lorasa_jax.load(tmp_path / "copy", seed=3).step == 60


def test_the_package_stays_light_and_knows_no_other_names():
    code = (
        "import sys, lorasa_jax; heavy = {'flax', 'optax', 'orbax', 'mujoco'} & set(sys.modules);"
        "assert not heavy, heavy; assert callable(lorasa_jax.load); print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.stdout == "done\n", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        lorasa_jax.laod  # noqa: B018
