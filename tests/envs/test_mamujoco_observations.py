"""Who sees and drives what: the source vector in words against the tables of the tasks.

Lists of joints are written without the `_joint` that the walker's and the hopper's names carry.
"""

import itertools

import jax
import numpy as np
import pytest
from mujoco_loop import PARTITION, PROFILES, ROBOTS, loop_of
from mujoco_words import both, forces, motor_words, numbered, pos, source_words

from lorasa_jax import envs
from lorasa_jax.envs import mamujoco, wrappers
from lorasa_jax.envs.mamujoco import observations
from lorasa_jax.envs.mamujoco.partitions import PARTITIONS, Partition, partition
from lorasa_jax.envs.mamujoco.physics import PhysState, load_model
from lorasa_jax.envs.mamujoco.robots import robot
from lorasa_jax.errors import ConfigError

KEY = jax.random.key(0)
LEGS = (1, 2, 3, 4)
_LEG_BODIES = {
    1: ("front_left_leg", "aux_1", "at ankle_1"),
    2: ("front_right_leg", "aux_2", "at ankle_2"),
    3: ("back_leg", "aux_3", "at ankle_3"),
    4: ("right_back_leg", "aux_4", "at ankle_4"),
}
SHORTER = {"walker2d", "hopper"}


def make(name, **options):
    return envs.make(name, engine="native", agent_ids=False, **options)


def local(name, profile="lorasa", k=1, categories=()):
    """[agent] of lists of words; padding, which comes last, is left out."""
    of = partition(name)
    body = robot(of.robot, profile)
    source = observations.Source(body, load_model(body))
    index = observations.observation_view(source, of, k, categories).index
    rows = [list(row) for row in source_words(source)[index]]
    width = max(len(row) - row.count("0") for row in rows)
    assert {len(row) for row in rows} == {width}
    rows = [row[: width - row.count("0")] for row in rows]
    assert not any("0" in row for row in rows)
    return [[w.removesuffix("_joint") for w in row] if of.robot in SHORTER else row for row in rows]


def ankle(leg):
    return both(f"ankle_{leg}") + forces(*_LEG_BODIES[leg])


def hips(*legs):
    return pos(*(f"hip_{leg}" for leg in legs))


def others(leg):
    return [other for other in LEGS if other != leg]


def segment_limbs(i, j):
    """The own joints of a many-agent ant's segments i and j; every body is felt once."""
    words = []
    for limb in (f"1_{i}", f"1_{j}", f"2_{i}", f"2_{j}"):
        words += both(f"ankle{limb}")
        words += forces(f"before hip{limb}", f"at hip{limb}", f"at ankle{limb}")
    for segment in (i, j):
        words += both(f"hip1_{segment}") + forces(f"torso_{segment}")
    return words + both(f"hip2_{i}", f"hip2_{j}")


def driven(*joints):
    """What a humanoid's own joint shows in profile `lorasa`."""
    return [f"{what} {joint}" for joint in joints for what in ("qp", "qv", "qf")]


ABDOMEN = ("abdomen_x", "abdomen_y", "abdomen_z")
HIPS = tuple(f"{side}_hip_{axis}" for side in ("left", "right") for axis in "xyz")
ARMS = (
    "left_elbow", "left_shoulder1", "left_shoulder2",
    "right_elbow", "right_shoulder1", "right_shoulder2",
)  # fmt: skip
KNEES = ("left_knee", "right_knee")

# The paper's: measured on the authors' code, by feeding it labelled arrays.
PAPER = {
    "halfcheetah_2x3": [
        both("bfoot", "bshin", "bthigh") + pos("fthigh"),
        both("ffoot", "fshin", "fthigh") + pos("bthigh"),
    ],
    "walker2d_3x2": [
        both("foot", "leg") + pos("thigh"),
        both("foot_left", "thigh") + pos("leg", "leg_left", "thigh_left"),
        both("leg_left", "thigh_left") + pos("foot_left", "thigh"),
    ],
    "ant_4x2": [
        ankle(leg) + both(f"hip_{leg}") + forces("torso") + hips(*others(leg)) for leg in LEGS
    ],
    "ant_2x4": [
        ankle(i) + ankle(j) + both(f"hip_{i}") + forces("torso") + both(f"hip_{j}") + hips(*rest)
        for i, j, rest in ((1, 2, (3, 4)), (3, 4, (1, 2)))
    ],
    "ant_8x1": [
        row
        for leg in LEGS
        for row in (
            both(f"hip_{leg}") + forces("torso", _LEG_BODIES[leg][0])
            + pos(f"ankle_{leg}") + hips(*others(leg)),
            ankle(leg) + hips(leg),
        )
    ],
    "humanoid_9_8": [
        driven(*ABDOMEN, *ARMS) + pos(*HIPS),
        driven(*HIPS[:3], "left_knee", *HIPS[3:], "right_knee") + pos(*ABDOMEN),
    ],
}  # fmt: skip

# The field's, by hand from the same rule; None where an agent is left out here.
FIELD = {
    "halfcheetah_6x1": [
        both("bfoot") + pos("bshin"),
        both("bshin") + pos("bfoot", "bthigh"),
        both("bthigh") + pos("bshin", "fthigh"),
        both("ffoot") + pos("fshin"),
        both("fshin") + pos("ffoot", "fthigh"),
        both("fthigh") + pos("bthigh", "fshin"),
    ],
    "halfcheetah_3x2": [
        both("bfoot", "bshin") + pos("bthigh"),
        both("bthigh", "ffoot") + pos("bshin", "fshin", "fthigh"),
        both("fshin", "fthigh") + pos("bthigh", "ffoot"),
    ],
    "walker2d_2x3": [
        both("foot", "leg", "thigh") + pos("thigh_left"),
        both("foot_left", "leg_left", "thigh_left") + pos("thigh"),
    ],
    "walker2d_6x1": [
        both("foot") + pos("leg"),
        both("leg") + pos("foot", "thigh"),
        both("thigh") + pos("leg", "thigh_left"),
        both("foot_left") + pos("leg_left"),
        both("leg_left") + pos("foot_left", "thigh_left"),
        both("thigh_left") + pos("leg_left", "thigh"),
    ],
    "ant_2x4d": [
        ankle(i) + ankle(j) + both(f"hip_{i}") + forces("torso") + both(f"hip_{j}") + hips(*rest)
        for i, j, rest in ((1, 4, (2, 3)), (2, 3, (1, 4)))
    ],
    "hopper_3x1": [
        both("thigh") + pos("leg"),
        both("leg") + pos("foot", "thigh"),
        both("foot") + pos("leg"),
    ],
    "humanoid_17x1": [
        driven("left_shoulder1") + pos(*ABDOMEN, "left_elbow", "left_shoulder2"),
        None,
        driven("abdomen_x")
        + pos("abdomen_y", "abdomen_z", *HIPS[:3], *ARMS[1:3], *HIPS[3:], *ARMS[4:]),
        *[None] * 4,
        driven("right_elbow") + pos("right_shoulder1", "right_shoulder2"),
        *[None] * 2,
        driven("left_hip_y") + pos(*ABDOMEN, "left_hip_x", "left_hip_z", "left_knee"),
        *[None] * 5,
        driven("left_knee") + pos(*HIPS[:3]),
    ],
    "swimmer_2x1": [
        both("motor1_rot") + pos("motor2_rot"),
        both("motor2_rot") + pos("motor1_rot"),
    ],
    "reacher_2x1": [
        ["sin joint0", "cos joint0", "qv joint0", "sin joint1", "cos joint1"],
        ["sin joint1", "cos joint1", "qv joint1", "tip x", "tip y", "tip z",
         "sin joint0", "cos joint0"],
    ],
    "manyagent_ant_2x2": [
        segment_limbs(0, 1) + pos("hip1_2", "hip2_2"),
        segment_limbs(2, 3) + pos("hip1_1", "hip2_1"),
    ],
    "manyagent_swimmer_3x2": [
        both("rot0", "rot1") + pos("rot2"),
        both("rot2", "rot3") + pos("rot1", "rot4"),
        both("rot4", "rot5") + pos("rot3"),
    ],
}  # fmt: skip
FIELD["humanoid_standup_9_8"] = PAPER["humanoid_9_8"]


@pytest.mark.parametrize("name", [*PAPER, *FIELD])
def test_local_observations_in_order(name):
    seen, expected = local(name), {**PAPER, **FIELD}[name]
    assert len(seen) == len(expected)
    for ours, wanted in zip(seen, expected, strict=True):
        assert wanted is None or ours == wanted


def test_every_partition_has_its_list():
    assert set(PARTITIONS) <= {*PAPER, *FIELD}


@pytest.mark.parametrize(
    "name, profile, agent, k, words",
    [
        ("halfcheetah_2x3", "lorasa", 0, 0, both("bfoot", "bshin", "bthigh")),
        ("halfcheetah_2x3", "lorasa", 0, 2, PAPER["halfcheetah_2x3"][0] + pos("fshin")),
        ("halfcheetah_2x3", "gymnasium", 1, 3, PAPER["halfcheetah_2x3"][1] + pos("bshin", "bfoot")),
        ("ant_4x2", "lorasa", 2, 0, PAPER["ant_4x2"][2][:-3]),
        ("ant_4x2", "lorasa", 2, 2, PAPER["ant_4x2"][2] + pos("ankle_1", "ankle_2", "ankle_4")),
        ("walker2d_6x1", "lorasa", 0, 2, both("foot") + pos("leg", "thigh")),
        ("hopper_3x1", "lorasa", 2, 2, both("foot") + pos("leg", "thigh")),
        ("humanoid_9_8", "lorasa", 0, 2, PAPER["humanoid_9_8"][0] + pos(*KNEES)),
        ("reacher_2x1", "lorasa", 1, 0, FIELD["reacher_2x1"][1][:-2]),
        ("manyagent_swimmer_3x2", "lorasa", 0, 2, both("rot0", "rot1") + pos("rot2", "rot3")),
    ],
)
def test_sight(name, profile, agent, k, words):
    """Distance 0 is one's own joints; each further distance adds positions only."""
    assert local(name, profile, k)[agent] == words


_PLANAR = pos("rootz", "rooty"), ["qv rootx", "qv rootz", "qv rooty"]
_FREE = [f"qp root {i}" for i in range(2, 7)], [f"qv root {i}" for i in range(6)]
ROOT = {
    "halfcheetah": _PLANAR,
    "walker2d": _PLANAR,
    "hopper": _PLANAR,
    "swimmer": (pos("free_body_rot"), ["qv free_body_rot"]),
    "reacher": (pos("target_x", "target_y"), []),
    "manyagent_swimmer_6": ([], []),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_global_categories_come_last(name, profile):
    positions, velocities = ROOT.get(name, _FREE)
    bare = local(PARTITION[name], profile)
    for categories, words in (
        (("qpos",), positions),
        (("qvel",), velocities),
        (("qpos", "qvel"), positions + velocities),
    ):
        for ours, row in zip(local(PARTITION[name], profile, 1, categories), bare, strict=True):
            assert ours == row + words


def joints(what, *names):
    return [f"{what} {name}" for name in names]


def bodies(what, width, names):
    return [f"{what} {name} {i}" for name in names for i in range(width)]


def single_agent_view(name, profile):
    """The observation of Gym's v2 task, or of Gymnasium's v5, from its documentation."""
    model, v5 = loop_of(name, profile).model, profile == "gymnasium"
    moving = [model.joint(i).name for i in range(model.njnt)]
    free = model.jnt_type[0] == 0
    names = source_words(observations.Source(robot(name, profile), model))
    entities = list(dict.fromkeys(w.split(" ", 1)[1][:-2] for w in names if w.startswith("cf ")))
    if name == "reacher":
        cosines = ["cos joint0", "cos joint1", "sin joint0", "sin joint1"]
        tip = ["tip x", "tip y"] if v5 else ["tip x", "tip y", "tip z"]
        return cosines + pos("target_x", "target_y") + joints("qv", "joint0", "joint1") + tip
    if not free:
        hidden = 2 if "swimmer" in name else 1
        return pos(*moving[hidden:]) + joints("qv", *moving)
    words = [f"qp root {i}" for i in range(2, 7)] + pos(*moving[1:])
    words += [f"qv root {i}" for i in range(6)] + joints("qv", *moving[1:])
    felt = entities[v5:]  # v5 leaves the world out
    if "humanoid" in name:
        words += bodies("ci", 10, felt) + bodies("cv", 6, felt)
        words += [] if v5 else [f"qf root {i}" for i in range(6)]
        words += joints("qf", *moving[1:])
    return words + bodies("cf", 6, felt)


STATE_SIZES = {
    "halfcheetah": (17, 17),
    "walker2d": (17, 17),
    "hopper": (11, 11),
    "swimmer": (8, 8),
    "reacher": (11, 10),
    "ant": (111, 105),
    "humanoid": (376, 348),
    "humanoid_standup": (376, 348),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_state_is_the_single_agent_observation(name, profile):
    source = observations.Source(robot(name, profile), loop_of(name, profile).model)
    seen = list(source_words(source)[observations.state_view(source).index])
    assert seen == single_agent_view(name, profile)
    if name in STATE_SIZES:
        assert len(seen) == STATE_SIZES[name][PROFILES.index(profile)]


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    "name, profile, options, raw, state",
    [
        # Table of the paper's scenarios: longest agent, and state.
        ("halfcheetah_2x3", "lorasa", {}, [7, 7], 17),
        ("walker2d_3x2", "lorasa", {}, [5, 7, 6], 17),
        ("ant_4x2", "lorasa", {}, [31] * 4, 111),
        ("ant_2x4", "lorasa", {}, [52] * 2, 111),
        ("ant_8x1", "lorasa", {}, [18, 21] * 4, 111),
        ("humanoid_9_8", "lorasa", {}, [376] * 2, 376),
        ("humanoid_9_8", "lorasa", {"full_observation": False}, [33, 27], 376),
        ("ant_4x2", "lorasa", {"full_observation": True}, [111] * 4, 111),
        ("ant_4x2", "lorasa", {"k": 0}, [28] * 4, 111),
        ("ant_4x2", "lorasa", {"k": 2}, [34] * 4, 111),
        ("ant_4x2", "lorasa", {"global_categories": ["qvel"]}, [37] * 4, 111),
        # Gymnasium-Robotics' sizes, root included.
        ("halfcheetah_2x3", "gymnasium", {}, [12, 12], 17),
        ("walker2d_2x3", "gymnasium", {}, [12, 12], 17),
        ("walker2d_3x2", "gymnasium", {}, [10, 12, 11], 17),
        ("ant_4x2", "gymnasium", {}, [42] * 4, 105),
        ("ant_2x4", "gymnasium", {}, [63] * 2, 105),
        ("ant_8x1", "gymnasium", {}, [29, 32] * 4, 105),
        ("ant_4x2", "gymnasium", {"global_categories": []}, [31] * 4, 105),
        ("humanoid_9_8", "gymnasium", {}, [242, 170], 348),
        ("humanoid_9_8", "gymnasium", {"full_observation": True}, [348] * 2, 348),
    ],
)
def test_sizes(x64, name, profile, options, raw, state):
    """Ids not counted, and then counted; shorter agents end in zeros."""
    env = make(name, profile=profile, **options)
    assert (env.observation_size, env.state_size) == (max(raw), state)
    data = numbered(
        loop_of(env.robot.name, profile).at_rest(env.model.qpos0, np.zeros(env.model.nv))
    )
    env.stepper = Told(data)
    seen = told(env, data)
    for row, size in zip(seen.obs, raw, strict=True):
        assert np.flatnonzero(row)[-1] == size - 1
    ids = envs.make(name, engine="native", profile=profile, **options)
    assert ids.observation_size == max(raw) + len(raw)
    assert ids.state_size == state + len(raw)


class Told:
    """A stepper whose robots are always in one given state, derived fields and all."""

    def __init__(self, data):
        self.data = data

    def step(self, physics, ctrl):
        data = self.data
        return PhysState(data.qpos, data.qvel, data.qacc_warmstart), self.forward(physics)

    def forward(self, physics):
        fields = ("xpos", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
        return {name: jax.numpy.asarray(getattr(self.data, name)) for name in fields}


def told(env, data):
    """The TimeStep after a step into `data`."""
    state, _ = env.set_physics(data.qpos, data.qvel)
    actions = np.zeros((env.num_agents, env.action_space.size))
    return env.step(KEY, state, actions)[1]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_environment_shows_the_numbers_behind_the_words(x64, name, profile):
    """From physics to TimeStep: every entry is the number of MjData that its word names."""
    env = make(PARTITION[name], profile=profile, full_observation=False)
    loop = loop_of(name, profile)
    data = numbered(loop.at_rest(loop.model.qpos0, np.zeros(loop.model.nv)))
    env.stepper = Told(data)
    seen = told(env, data)
    words = source_words(env.source)
    numbers = dict(zip(words, np.zeros(len(words)), strict=True))
    for field in env.source.sizes:
        if field != "extra":
            first = env.source.begins[field]
            values = getattr(data, field).reshape(-1)
            numbers |= dict(zip(words[first : first + len(values)], values, strict=True))
    if env.robot.extras:
        q, tip = data.qpos, data.body("fingertip").xpos - data.body("target").xpos
        numbers |= {"cos joint0": np.cos(q[0]), "cos joint1": np.cos(q[1])}
        numbers |= {"sin joint0": np.sin(q[0]), "sin joint1": np.sin(q[1])}
        numbers |= dict(zip(("tip x", "tip y", "tip z"), tip, strict=True))
    categories = ("qpos", "qvel") if profile == "gymnasium" else ()
    view = observations.observation_view(env.source, env.partition, 1, categories)
    for index, values in ((view.index, seen.obs), (state_index(env), seen.state)):
        expected = np.vectorize(numbers.get, otypes=[float])(words[index])
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-15)


def state_index(env):
    return np.tile(observations.state_view(env.source).index, (env.num_agents, 1))


@pytest.mark.parametrize(
    "name, profile, field, in_obs, in_state",
    [
        ("walker2d_3x2", "lorasa", "qvel", np.inf, 10.0),
        ("walker2d_3x2", "gymnasium", "qvel", np.inf, 10.0),
        ("hopper_3x1", "lorasa", "qvel", 10.0, 10.0),
        ("hopper_3x1", "gymnasium", "qvel", 10.0, 10.0),
        ("halfcheetah_2x3", "lorasa", "qvel", np.inf, np.inf),
        ("ant_4x2", "gymnasium", "cfrc_ext", 1.0, 1.0),
        ("manyagent_ant_2x3", "gymnasium", "cfrc_ext", 1.0, 1.0),
        ("humanoid_9_8", "gymnasium", "cfrc_ext", np.inf, np.inf),
    ],
)
def test_bounds_of_what_is_seen(x64, name, profile, field, in_obs, in_state):
    """Huge values of either sign come out at the bound; other fields are left alone."""
    env = make(name, profile=profile)
    data = numbered(loop_of(env.robot.name, profile).data(env.model.qpos0, np.zeros(env.model.nv)))
    entries = getattr(data, field)
    entries[:] = np.where(np.arange(entries.size) % 2, 50.0, -50.0).reshape(entries.shape)
    env.stepper = Told(data)
    seen = told(env, data)
    for values, bound in ((seen.obs, in_obs), (seen.state, in_state)):
        big = np.abs(np.asarray(values))
        big = big[big >= 1.0]
        np.testing.assert_array_equal(np.unique(big), [min(bound, 50.0)])


# --- actions ---------------------------------------------------------------------------------

# What each agent's actions turn when they are concatenated in agent order, as in the paper.
FLAT = {
    "halfcheetah_2x3": [["bthigh", "bshin", "bfoot"], ["fthigh", "fshin", "ffoot"]],
    "walker2d_3x2": [
        ["thigh_joint", "leg_joint"],
        ["foot_joint", "thigh_left_joint"],
        ["leg_left_joint", "foot_left_joint"],
    ],
    "ant_4x2": [[f"hip_{leg}", f"ankle_{leg}"] for leg in (4, 1, 2, 3)],
    "ant_2x4": [
        [f"{part}_{leg}" for leg in pair for part in ("hip", "ankle")] for pair in ((4, 1), (2, 3))
    ],
    "ant_8x1": [[f"{part}_{leg}"] for leg in (4, 1, 2, 3) for part in ("hip", "ankle")],
    "humanoid_9_8": [
        ["abdomen_y", "abdomen_z", "abdomen_x", "right_hip_x", "right_hip_z", "right_hip_y",
         "right_knee", "left_hip_x", "left_hip_z"],
        ["left_hip_y", "left_knee", "right_shoulder1", "right_shoulder2", "right_elbow",
         "left_shoulder1", "left_shoulder2", "left_elbow"],
    ],
}  # fmt: skip


def motors(name, order):
    of = partition(name)
    model = loop_of(of.robot).model
    return motor_words(model, observations.action_index(of, model, order)), model


@pytest.mark.parametrize("name", FLAT)
def test_flat_actions_turn_the_joints_of_the_papers_table(name):
    assert motors(name, "flat")[0] == FLAT[name]


@pytest.mark.parametrize("name", [*PARTITIONS, "manyagent_ant_2x2", "manyagent_swimmer_3x2"])
def test_actions_turn_every_joint_once(name):
    """`node`: those that the agent observes, in its order; `flat`: the actuators in theirs."""
    own, model = motors(name, "node")
    assert own == [list(agent) for agent in partition(name).agents]
    flat, _ = motors(name, "flat")
    actuators = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
    assert list(itertools.chain(*flat)) == actuators
    assert sorted(itertools.chain(*own)) == sorted(actuators)
    assert [len(row) for row in flat] == [len(row) for row in own]


def test_ant_motors_by_number():
    model = loop_of("ant").model
    expected = {"node": [[2, 3], [4, 5], [6, 7], [0, 1]], "flat": [[0, 1], [2, 3], [4, 5], [6, 7]]}
    for order, index in expected.items():
        ours = observations.action_index(PARTITIONS["ant_4x2"], model, order)
        np.testing.assert_array_equal(ours, index)


def test_unequal_agents_are_padded():
    model = loop_of("ant").model
    uneven = Partition("ant", (("hip_1",), ("hip_2", "ankle_2")))
    for order, index in (("node", [[2, -1], [4, 5]]), ("flat", [[0, -1], [1, 2]])):
        np.testing.assert_array_equal(observations.action_index(uneven, model, order), index)


# --- robots and their models -----------------------------------------------------------------

DT = {
    "halfcheetah": 0.05,
    "walker2d": 0.008,
    "hopper": 0.008,
    "swimmer": 0.04,
    "reacher": 0.02,
    "ant": 0.05,
    "humanoid": 0.015,
    "humanoid_standup": 0.015,
    "manyagent_ant_4": 0.05,
    "manyagent_swimmer_6": 0.04,
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", ROBOTS)
def test_robot_agrees_with_its_model(name, profile):
    body, loop = robot(name, profile), loop_of(name, profile)
    model = loop.model
    actuated = sorted(model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu))
    assert list(body.joints) == actuated
    assert body.free_root == (model.jnt_type[0] == 0)
    np.testing.assert_allclose(loop.dt, DT[name], rtol=1e-12)
    np.testing.assert_allclose(make(PARTITION[name], profile=profile).dt, DT[name], rtol=1e-12)


@pytest.mark.parametrize("name", ["ant_4x2", "humanoid_9_8"])
@pytest.mark.parametrize("full", [True, False])
def test_ids_come_last(name, full):
    options = {"engine": "native", "full_observation": full}
    plain, named = envs.make(name, agent_ids=False, **options), envs.make(name, **options)
    qpos, qvel = plain.model.qpos0 + 0.01, np.full(plain.model.nv, 0.3)
    (_, plain), (_, named) = plain.set_physics(qpos, qvel), named.set_physics(qpos, qvel)
    n = len(plain.obs)
    for bare, both_ in ((plain.obs, named.obs), (plain.state, named.state)):
        np.testing.assert_array_equal(both_[:, :-n], bare)
        np.testing.assert_array_equal(both_[:, -n:], np.eye(n))


def test_defaults_of_the_profiles():
    """The paper's humanoid sees the whole state; its relatives and the other profile do not."""
    whole = {
        name for name in mamujoco.NAMES if make(name).observation_size == make(name).state_size
    }
    assert whole == {"humanoid_9_8"}
    assert make("humanoid_9_8", profile="gymnasium").observation_size == 242


@pytest.mark.parametrize("k", [-1, 3])
def test_sight_beyond_the_joint_graph_is_refused(k):
    with pytest.raises(ConfigError, match=f"env.k={k} is out of range; .* it goes from 0 to 2"):
        make("ant_4x2", k=k)


@pytest.mark.parametrize(
    ("name", "views"), [("ant_4x2", {"state"}), ("humanoid_9_8", {"obs", "state"})]
)
def test_what_is_called_alike_is_the_same_for_all_agents(name, views):
    env = envs.make(name)
    _, timestep = env.reset(jax.random.key(0))
    assert set(env.alike) == views
    for view, features in env.alike.items():
        seen = np.asarray(getattr(timestep, view))
        assert (seen[:, :features] == seen[:1, :features]).all()
        np.testing.assert_allclose(seen.mean(-1), seen[0].mean(), rtol=1e-6)
        np.testing.assert_allclose(seen.var(-1), seen[0].var(), rtol=1e-6)
    assert wrappers.ObservationWrapper(env).alike == {}
    assert wrappers.Standardise(env).alike == env.alike
