"""Profile `gymnasium` against Gymnasium-Robotics, the published implementation of these tasks."""

import functools
import warnings

import jax
import mujoco
import numpy as np
import pytest
from mujoco_loop import loop_of
from mujoco_words import numbered
from test_mamujoco_observations import Told, told

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import segments

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore::UserWarning:gymnasium"),
]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("gymnasium_robotics")
    from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer
    from gymnasium_robotics.envs.multiagent_mujoco.mujoco_multi import MultiAgentMujocoEnv
    from gymnasium_robotics.envs.multiagent_mujoco.obsk import get_parts_and_edges

STEPS = 100
# A whole episode and the beginning of another for the paper's robots.
WHOLE = ("halfcheetah_2x3", "walker2d_3x2", "ant_4x2", "ant_8x1", "humanoid_9_8")
# Scenario and factorisation there; the factorisations it lacks are regrouped from another one.
THERE = {
    "halfcheetah_2x3": ("HalfCheetah", "2x3"),
    "halfcheetah_6x1": ("HalfCheetah", "6x1"),
    "walker2d_2x3": ("Walker2d", "2x3"),
    "ant_4x2": ("Ant", "4x2"),
    "ant_2x4": ("Ant", "2x4"),
    "ant_2x4d": ("Ant", "2x4d"),
    "hopper_3x1": ("Hopper", "3x1"),
    "humanoid_9_8": ("Humanoid", "9|8"),
    "humanoid_standup_9_8": ("HumanoidStandup", "9|8"),
    "swimmer_2x1": ("Swimmer", "2x1"),
    "reacher_2x1": ("Reacher", "2x1"),
    "manyagent_swimmer_6x1": ("ManySegmentSwimmer", "6x1"),
}
REGROUPED = {
    "halfcheetah_3x2": ("HalfCheetah", "2x3"),
    "walker2d_3x2": ("Walker2d", "2x3"),
    "walker2d_6x1": ("Walker2d", "2x3"),
    "ant_8x1": ("Ant", "4x2"),
    "humanoid_17x1": ("Humanoid", "9|8"),
}
MANY_ANT = {"manyagent_ant_2x3": ("ManySegmentAnt", "2x3")}


def theirs(name, k=1):
    """The reference environment."""
    scenario, conf = {**THERE, **REGROUPED, **MANY_ANT}[name]
    factorisation = regrouped(name, scenario, conf) if name in REGROUPED else None
    return MultiAgentMujocoEnv(scenario, conf, agent_obsk=k, agent_factorization=factorisation)


def regrouped(name, scenario, conf):
    """Their own nodes, edges and globals; their nodes in the agents of `name`."""
    parts, edges, root = get_parts_and_edges(scenario, conf)
    nodes = {node.act_ids: node for part in parts for node in part}
    rows = ours(name).action_index
    partition = [tuple(nodes[int(i)] for i in row if i >= 0) for row in rows]
    return {"partition": partition, "edges": edges, "globals": root}


@functools.cache
def ours(name):
    return make(name)


def make(name, **options):
    return envs.make(name, engine="native", profile="gymnasium", agent_ids=False, **options)


def agents(env, reference):
    """Their agents in the order of ours: those that drive the same motors."""
    there = {
        frozenset(node.act_ids for node in part): agent
        for agent, part in zip(
            reference.possible_agents, reference.agent_action_partitions, strict=True
        )
    }
    return [there[frozenset(int(i) for i in row if i >= 0)] for row in env.action_index]


def assert_seen(timestep, observations, order, atol):
    for row, agent in zip(np.asarray(timestep.obs), order, strict=True):
        width = len(observations[agent])
        np.testing.assert_allclose(row[:width], observations[agent], rtol=0, atol=atol)
        assert not row[width:].any()


def torques(env, actions):
    """Our actions as controls by actuator."""
    low, high = env.model.actuator_ctrlrange.T
    by_motor = np.zeros(env.model.nu)
    by_motor[env.action_index[env.action_index >= 0]] = actions[env.action_index >= 0]
    return (low + high) / 2 + (high - low) / 2 * by_motor


@functools.cache
def stepper(name):
    return jax.jit(lambda state, actions: ours(name).step(None, state, actions))


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", [*THERE, *REGROUPED, *MANY_ANT])
def test_episodes(name):
    """Random play, begun anew wherever an episode ends: physics bit for bit.

    Of the many-agent ant only physics, reward and state are compared. The reference computes its
    nodes' indices as `-4 - off` with an `off` that is negative, so that all segments but the last
    observe other joints, and it joins segments through copies of their hips.
    """
    env, reference = ours(name), theirs(name)
    order, single = agents(env, reference), reference.single_agent_env.unwrapped
    rng, state, ends = np.random.default_rng(1), None, 0
    for _ in range(1100 if name in WHOLE else STEPS):
        if state is None:
            seen, _ = reference.reset(seed=int(rng.integers(1000)))
            state, timestep = env.set_physics(single.data.qpos.copy(), single.data.qvel.copy())
        else:
            actions = rng.uniform(-1, 1, (env.num_agents, env.action_space.size))
            controls = torques(env, actions)
            local = {
                agent: np.array([controls[node.act_ids] for node in part])
                for agent, part in zip(
                    reference.possible_agents, reference.agent_action_partitions, strict=True
                )
            }
            seen, rewards, terminated, truncated, _ = reference.step(local)
            state, timestep = stepper(name)(state, actions)
            np.testing.assert_allclose(timestep.reward, rewards["agent_0"], rtol=1e-12, atol=1e-12)
            assert timestep.terminated == terminated["agent_0"]
            assert timestep.truncated == truncated["agent_0"]
        np.testing.assert_array_equal(state.physics.qpos, single.data.qpos)
        np.testing.assert_array_equal(state.physics.qvel, single.data.qvel)
        for row in timestep.state:
            np.testing.assert_allclose(row, reference.state(), rtol=0, atol=1e-12)
        if name not in MANY_ANT:
            assert_seen(timestep, seen, order, 1e-12)
        if timestep.terminated or timestep.truncated:
            state, ends = None, ends + 1
    if name.startswith(
        ("halfcheetah_2", "hopper", "walker2d", "humanoid_9", "humanoid_17", "reacher")
    ):
        assert ends > 0
    reference.close()


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", [*THERE, *REGROUPED])
def test_index_maps(name):
    """Another number in every entry of MjData: what each agent sees of it, at all distances."""
    for k in (0, 1, 2):
        if name in ("swimmer_2x1", "reacher_2x1") and k == 2:
            continue  # beyond their joint graph
        env, reference = make(name, k=k), theirs(name, k)
        reference.reset(seed=0)
        data = numbered(reference.single_agent_env.unwrapped.data)
        env.stepper = Told(data)
        timestep = told(env, data)
        assert_seen(timestep, reference._get_obs(), agents(env, reference), 1e-15)
        np.testing.assert_allclose(timestep.state[0], reference.state(), rtol=0, atol=1e-15)
        reference.close()


@pytest.mark.parametrize("name", ["halfcheetah_2x3", "walker2d_2x3", "ant_4x2", "humanoid_9_8"])
@pytest.mark.parametrize("categories", [(), ("qpos",), ("qvel",)])
def test_global_categories(name, categories):
    scenario, conf = THERE[name]
    env = make(name, global_categories=categories)
    reference = MultiAgentMujocoEnv(scenario, conf, global_categories=categories)
    reference.reset(seed=0)
    data = numbered(reference.single_agent_env.unwrapped.data)
    env.stepper = Told(data)
    assert_seen(told(env, data), reference._get_obs(), agents(env, reference), 1e-15)
    reference.close()


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize(
    "template, build", [(many_segment_ant, segments.ant), (many_segment_swimmer, segments.swimmer)]
)
def test_segments_are_those_of_the_templates(tmp_path, template, build, count):
    """Every number of the compiled models but colours, cameras and names."""
    path = str(tmp_path / "model.xml")
    template.gen_asset(count, path)
    wanted, ours = mujoco.MjModel.from_xml_path(path), build(count)
    looks = ("vis", "stat", "tex", "mat", "cam", "light", "name", "path", "text", "numeric",
             "geom_rgba", "geom_matid", "skin", "mesh")  # fmt: skip
    compared = 0
    for field in dir(wanted):
        if not field.startswith(("_", *looks)) and isinstance(getattr(wanted, field), np.ndarray):
            np.testing.assert_array_equal(getattr(ours, field), getattr(wanted, field), field)
            compared += 1
    assert compared > 100
    for field in ("timestep", "integrator", "density", "viscosity", "solver", "cone",
                  "iterations", "tolerance", "disableflags", "enableflags"):  # fmt: skip
        assert getattr(ours.opt, field) == getattr(wanted.opt, field), field


@pytest.mark.parametrize("name", ["humanoid", "ant", "halfcheetah", "walker2d", "reacher"])
def test_models_are_those_of_gymnasium(name):
    """Margins, masses and friction of profile `gymnasium` are the files'."""
    scenario = {"humanoid": "humanoid_9_8", "ant": "ant_4x2", "halfcheetah": "halfcheetah_2x3",
                "walker2d": "walker2d_2x3", "reacher": "reacher_2x1"}[name]  # fmt: skip
    reference = theirs(scenario)
    wanted, model = reference.single_agent_env.unwrapped.model, loop_of(name, "gymnasium").model
    for field in ("geom_margin", "geom_friction", "body_mass", "body_inertia", "dof_armature",
                  "dof_damping", "jnt_range", "actuator_gear", "actuator_ctrlrange"):  # fmt: skip
        np.testing.assert_array_equal(getattr(model, field), getattr(wanted, field), field)
    reference.close()
