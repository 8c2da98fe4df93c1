"""What tells the two profiles apart: model files, contact margins, contact forces."""

from pathlib import Path

import gymnasium
import jax
import mujoco
import numpy as np
import pytest
from mujoco_loop import PARTITION, PROFILES, ROBOTS, harvest, loop_of, pick

from lorasa_jax import envs
from lorasa_jax.envs.mamujoco.rewards import Contact
from lorasa_jax.envs.mamujoco.robots import robot

KEY = jax.random.key(0)
MARGINS = {  # of the files
    "ant": 0.01,
    "manyagent_ant_4": 0.01,
    "humanoid": 0.001,
    "humanoid_standup": 0.001,
    "hopper": 0.001,
}


def friction(model, body):
    return model.geom_friction[model.body_geomadr[model.body(body).id], 0]


@pytest.mark.parametrize("name", ROBOTS)
def test_lorasa_has_the_contacts_of_mujoco_2(name):
    """A model's margins are all equal; half of one, added twice, is what MuJoCo 2 took once."""
    ours, theirs = (loop_of(name, profile).model.geom_margin for profile in PROFILES)
    np.testing.assert_array_equal(theirs, MARGINS.get(name, 0.0))
    np.testing.assert_array_equal(ours, theirs / 2)


def test_walkers_feet():
    """v2's right foot slips more than its left one; v5 mended that."""
    old, new = (loop_of("walker2d", profile).model for profile in PROFILES)
    assert robot("walker2d", "lorasa").xml == "walker2d.xml"
    assert robot("walker2d", "gymnasium").xml == "walker2d_v5.xml"
    assert (friction(old, "foot"), friction(old, "foot_left")) == (0.9, 1.9)
    assert (friction(new, "foot"), friction(new, "foot_left")) == (1.9, 1.9)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_cheetah_weighs_14_kg(profile):
    model = loop_of("halfcheetah", profile).model
    np.testing.assert_allclose(model.body_mass.sum(), 14.0, rtol=1e-12)
    np.testing.assert_allclose(model.body_subtreemass[0], 14.0, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_cheetahs_mass_is_applied_as_the_file_would():
    """The deprecated attribute, read by MuJoCo itself, gives the same model."""
    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    wanted = mujoco.MjModel.from_xml_path(str(folder / "half_cheetah.xml"))
    ours = loop_of("halfcheetah").model
    for field in ("body_mass", "body_inertia", "body_invweight0", "dof_invweight0"):
        np.testing.assert_allclose(getattr(ours, field), getattr(wanted, field), rtol=1e-12)


@pytest.mark.parametrize("name", ["ant", "humanoid", "humanoid_standup", "manyagent_ant_4"])
def test_contact_forces_are_seen_in_profile_gymnasium_only(x64, name):
    """Twenty robots on the floor: zeros with the paper, forces with Gymnasium."""
    seen = {}
    for profile in PROFILES:
        env = envs.make(PARTITION[name], engine="native", profile=profile, agent_ids=False)
        states = pick(harvest(name, profile), slice(20))
        state, _ = jax.vmap(env.set_physics)(states.qpos, states.qvel)
        actions = np.zeros((20, env.num_agents, env.action_space.size))
        _, timestep = jax.jit(jax.vmap(lambda s, a, env=env: env.step(KEY, s, a)))(state, actions)
        shown = 6 * (env.model.nbody - (profile == "gymnasium"))
        seen[profile] = np.asarray(timestep.state[:, 0, -shown:])
        assert not robot(name, profile).contact_forces or profile == "gymnasium"
    assert not seen["lorasa"].any()
    assert (np.abs(seen["gymnasium"]).max(1) > 0.1).mean() > 0.5


def test_contact_costs():
    """Only v5 has them: 5e-4 of forces within +-1 (ants), 5e-7 up to 10 in all (humanoids)."""
    costs = {
        name: [term for term in robot(name, "gymnasium").rewards if isinstance(term, Contact)]
        for name in ROBOTS
    }
    assert costs.pop("ant") == costs.pop("manyagent_ant_4") == [Contact(5e-4, entry=1.0)]
    assert costs.pop("humanoid") == costs.pop("humanoid_standup") == [Contact(5e-7, most=10.0)]
    assert not any(costs.values())
    assert not any(isinstance(t, Contact) for n in ROBOTS for t in robot(n, "lorasa").rewards)
