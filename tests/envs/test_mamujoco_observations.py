"""Who sees and drives what: labelled arrays against the table, the robot against its model."""

from dataclasses import replace

import numpy as np
import pytest

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco import observations
from lorasa_jax.envs.mamujoco.partitions import PARTITIONS, Partition
from lorasa_jax.envs.mamujoco.physics import load_model
from lorasa_jax.envs.mamujoco.robots import ANT
from lorasa_jax.errors import ConfigError

ANT_4X2 = PARTITIONS["ant_4x2"]
LEGS = (1, 2, 3, 4)


def upper(model, leg):
    """The body between the torso and `aux_i`, which the hip turns."""
    return model.body_parentid[model.joint(f"hip_{leg}").bodyid[0]]


def source_labels(model):
    """The source vector in words, from the model's own names and addresses."""
    labels = np.full(model.nq + model.nv + 6 * model.nbody + 1, "?", dtype=object)
    root = model.jnt_qposadr[1]
    labels[:root] = [f"qp root {i}" for i in range(root)]
    labels[model.nq : model.nq + 6] = [f"qv root {i}" for i in range(6)]
    for i in range(1, model.njnt):
        joint = model.joint(i)
        labels[joint.qposadr[0]] = f"qp {joint.name}"
        labels[model.nq + joint.dofadr[0]] = f"qv {joint.name}"
    names = {0: "world", model.body("torso").id: "torso"}
    for leg in LEGS:
        names[upper(model, leg)] = f"upper_{leg}"
        names[model.joint(f"hip_{leg}").bodyid[0]] = f"aux_{leg}"
        names[model.joint(f"ankle_{leg}").bodyid[0]] = f"lower_{leg}"
    for body in range(model.nbody):
        first = model.nq + model.nv + 6 * body
        labels[first : first + 6] = [f"cf {names[body]} {i}" for i in range(6)]
    labels[-1] = "0"
    assert "?" not in labels
    return labels


def felt(body):
    return [f"cf {body} {i}" for i in range(6)]


def actuator(model, joint):
    """The actuator that turns `joint`."""
    (found,) = (i for i in range(model.nu) if model.actuator(i).trnid[0] == model.joint(joint).id)
    return found


def test_ant_4x2_observations_in_order(reference):
    seen = source_labels(reference.model)[observations.observation_index(ANT_4X2)]
    assert seen.shape == (4, 31)
    for leg, row in zip(LEGS, seen, strict=True):
        assert list(row) == [
            f"qp ankle_{leg}", f"qv ankle_{leg}",
            *felt(f"upper_{leg}"), *felt(f"aux_{leg}"), *felt(f"lower_{leg}"),
            f"qp hip_{leg}", f"qv hip_{leg}",
            *felt("torso"),
            *(f"qp hip_{other}" for other in LEGS if other != leg),
        ]  # fmt: skip


def test_state_is_the_single_agent_observation(reference):
    model = reference.model
    seen = source_labels(model)[observations.state_index(ANT)]
    assert list(seen) == list(source_labels(model)[2:-1])
    assert len(seen) == 13 + 14 + 84 == 111


def test_environment_gathers_qpos_and_qvel_and_leaves_contacts_zero(reference):
    """Labels as numbers, through set_physics: 1 ... 15 are qpos, 101 ... 114 qvel."""
    env = envs.make("ant_4x2", engine="native", agent_ids=False)
    qpos, qvel = np.arange(1.0, 16), np.arange(101.0, 115)
    source = np.concatenate([qpos, qvel, np.zeros(6 * 14 + 1)])
    _, timestep = env.set_physics(qpos, qvel)
    np.testing.assert_array_equal(timestep.obs, source[observations.observation_index(ANT_4X2)])
    np.testing.assert_array_equal(timestep.obs[0, [0, 1, 20, 21]], [9, 108, 8, 107])
    np.testing.assert_array_equal(timestep.obs[0, 28:], [10, 12, 14])
    np.testing.assert_array_equal(timestep.obs[3, 28:], [8, 10, 12])
    expected = np.concatenate([qpos[2:], qvel, np.zeros(84)])
    np.testing.assert_array_equal(timestep.state, np.tile(expected, (4, 1)))


@pytest.mark.parametrize("k, width", [(0, 28), (1, 31), (2, 34)])
def test_wider_sight_adds_positions_only(k, width):
    """At distance 2 lie the other legs' ankles."""
    index = observations.observation_index(ANT_4X2, k)
    assert index.shape == (4, width)
    if k == 2:
        ankles = [ANT.joints[f"ankle_{leg}"].qpos for leg in (1, 2, 4)]
        np.testing.assert_array_equal(index[2, 31:], ankles)


def test_unequal_agents_are_padded():
    """Ant 8x1: a hip sees 18 numbers, an ankle 21; a lone joint beside a pair acts with one."""
    each = Partition(ANT, (("hip_1",), ("ankle_1",)))
    index = observations.observation_index(each)
    zero = observations.source(ANT).zero
    assert index.shape == (2, 21)
    np.testing.assert_array_equal((index != zero).sum(1), [18, 21])
    np.testing.assert_array_equal(index[0, 18:], [zero] * 3)
    uneven = Partition(ANT, (("hip_1",), ("hip_2", "ankle_2")))
    np.testing.assert_array_equal(observations.action_index(uneven, "node"), [[2, -1], [4, 5]])
    np.testing.assert_array_equal(observations.action_index(uneven, "flat"), [[0, -1], [1, 2]])


def test_node_actions_drive_the_joints_that_are_seen(reference):
    model = reference.model
    expected = [[actuator(model, f"hip_{i}"), actuator(model, f"ankle_{i}")] for i in LEGS]
    np.testing.assert_array_equal(observations.action_index(ANT_4X2, "node"), expected)
    assert expected == [[2, 3], [4, 5], [6, 7], [0, 1]]


def test_flat_actions_drive_the_leg_before(reference):
    model = reference.model
    index = observations.action_index(ANT_4X2, "flat")
    np.testing.assert_array_equal(index, np.arange(8).reshape(4, 2))
    driven = [[actuator(model, f"hip_{i}"), actuator(model, f"ankle_{i}")] for i in (4, 1, 2, 3)]
    np.testing.assert_array_equal(index, driven)


def test_robot_agrees_with_its_model(reference):
    model = reference.model
    assert (ANT.nq, ANT.nv, ANT.nbody) == (model.nq, model.nv, model.nbody)
    assert ANT.torso == model.body("torso").id
    assert ANT.frame_skip * model.opt.timestep == 0.05
    assert set(ANT.joints) == {model.joint(i).name for i in range(1, model.njnt)}
    for name, joint in ANT.joints.items():
        assert joint.qpos == model.jnt_qposadr[model.joint(name).id]
        assert joint.qvel == model.jnt_dofadr[model.joint(name).id]
        assert joint.actuator == actuator(model, name)


@pytest.mark.parametrize("leg", LEGS)
def test_joints_feel_the_bodies_around_them(reference, leg):
    model, torso = reference.model, ANT.torso
    aux = model.joint(f"hip_{leg}").bodyid[0]
    lower = model.joint(f"ankle_{leg}").bodyid[0]
    assert model.body(aux).name == f"aux_{leg}"
    assert model.body_parentid[lower] == aux and model.body_parentid[upper(model, leg)] == torso
    assert ANT.joints[f"hip_{leg}"].bodies == (torso, upper(model, leg))
    assert ANT.joints[f"ankle_{leg}"].bodies == (upper(model, leg), aux, lower)


def test_model_has_the_contacts_of_mujoco_2(reference):
    """The file's margin is 0.01 everywhere; half of it twice is what MuJoCo 2 took once."""
    np.testing.assert_array_equal(reference.model.geom_margin, 0.005)


def test_another_model_file_is_refused():
    with pytest.raises(ConfigError, match=r"ant\.xml in the installed gymnasium is not the file"):
        load_model(replace(ANT, sha256="00000000"))


@pytest.mark.parametrize("agent_ids, sizes", [(True, (35, 115)), (False, (31, 111))])
def test_sizes(agent_ids, sizes):
    env = envs.make("ant_4x2", engine="native", agent_ids=agent_ids)
    assert (env.observation_size, env.state_size) == sizes
    assert (env.num_agents, env.max_steps) == (4, 1000)
    assert env.agents == ("agent_0", "agent_1", "agent_2", "agent_3")
    assert env.action_space == envs.Box(2)


def test_ids_come_last():
    qpos, qvel = np.arange(1.0, 16), np.arange(101.0, 115)
    _, plain = envs.make("ant_4x2", engine="native", agent_ids=False).set_physics(qpos, qvel)
    _, named = envs.make("ant_4x2", engine="native").set_physics(qpos, qvel)
    for bare, full in ((plain.obs, named.obs), (plain.state, named.state)):
        np.testing.assert_array_equal(full[:, :-4], bare)
        np.testing.assert_array_equal(full[:, -4:], np.eye(4))
