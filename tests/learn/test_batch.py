import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lorasa_jax.learn import batch as batches
from lorasa_jax.learn.rollout import Trajectory, Transition
from lorasa_jax.learn.team import Role, Team
from lorasa_jax.policy.networks import RecurrentNetwork, standardise

CHUNKS, CLOCK, ENVS, AGENTS = 3, 4, 5, 2
TIME, ENV, AGENT = np.meshgrid(
    np.arange(CHUNKS * CLOCK), np.arange(ENVS), np.arange(AGENTS), indexing="ij"
)
LABELS = jnp.int32(1000 * TIME + 10 * ENV + AGENT)
PLAIN = RecurrentNetwork({}, {}, layer_norm=False)
TEAM = Team(None, None, Role(PLAIN, None, None, 1), Role(PLAIN, None, None, 1))


@pytest.fixture(scope="module", params=[1, 3, 5, 15])
def prepared(request):
    chunked = LABELS.reshape(CHUNKS, CLOCK, ENVS, AGENTS)
    wide = chunked[..., None]
    of_env = chunked[..., 0]
    trajectory = Trajectory(
        Transition(
            obs=wide, state=wide, action=chunked, log_prob=wide, value=chunked, active=chunked,
            legal=wide, first=of_env, reward=of_env, terminated=of_env, truncated=of_env,
            slot=of_env,
        ),
        actor_carry=wide[:, 0],
        critic_carry=-wide[:, 0],
        last_value=chunked[-1, -1],
        end_values=chunked[-1, -1][None],
    )  # fmt: skip
    return request.param, batches.prepare(
        trajectory, TEAM, LABELS, -LABELS, blocks=request.param, clock=CLOCK
    )


def test_blocks_are_equal_parts_of_the_sequences(prepared):
    blocks, batch = prepared
    assert batch.advantage.shape == (blocks, CLOCK, AGENTS, CHUNKS * ENVS // blocks)
    assert batch.obs.shape == (*batch.advantage.shape, 1)


def test_every_sample_is_in_exactly_one_block(prepared):
    _, batch = prepared
    np.testing.assert_array_equal(np.sort(batch.advantage, axis=None), np.sort(LABELS, axis=None))


def test_a_sequence_is_consecutive_steps_of_one_environment(prepared):
    _, batch = prepared
    np.testing.assert_array_equal(np.diff(batch.advantage, axis=1), 1000)
    np.testing.assert_array_equal(batch.advantage[:, 0] // 1000 % CLOCK, 0)


def test_agents_lie_on_their_axis(prepared):
    _, batch = prepared
    agents = np.moveaxis(np.asarray(batch.advantage) % 10, 2, -1)
    np.testing.assert_array_equal(agents, np.broadcast_to(np.arange(AGENTS), agents.shape))


def test_all_quantities_are_of_the_same_sample(prepared):
    _, batch = prepared
    for name in ("action", "value", "active"):
        np.testing.assert_array_equal(getattr(batch, name), batch.advantage)
    for name in ("obs", "state", "log_prob", "legal"):
        np.testing.assert_array_equal(getattr(batch, name)[..., 0], batch.advantage)
    np.testing.assert_array_equal(batch.target, -batch.advantage)
    np.testing.assert_array_equal(batch.first, batch.advantage[:, :, 0])


def test_a_sequence_starts_from_its_own_recurrent_state(prepared):
    _, batch = prepared
    np.testing.assert_array_equal(batch.actor_carry[..., 0], batch.advantage[:, 0])
    np.testing.assert_array_equal(batch.critic_carry[..., 0], -batch.advantage[:, 0])


@pytest.mark.parametrize(
    ("sequences", "rows", "blocks"), [(100, 40, 1), (400, 40, 4), (400, 10, 1), (7, 10_000, 7)]
)
def test_block_count_is_the_fewest_equal_parts_that_fit(monkeypatch, sequences, rows, blocks):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert batches.block_count(sequences, rows) == blocks


def test_accelerators_take_one_block(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert batches.block_count(400, 10_000) == 1


def test_inputs_are_standardised_once_where_the_network_does_it(prepared):
    blocks, _ = prepared
    x = jnp.stack([LABELS.astype(float) * i for i in range(3)], axis=-1)
    x = x.reshape(CHUNKS, CLOCK, *x.shape[1:])
    zeros = jnp.zeros(x.shape[:-1])
    steps = Transition(
        obs=x, state=x, action=x, log_prob=x, value=zeros, active=zeros, legal=x,
        first=zeros[..., 0], reward=zeros[..., 0], terminated=zeros[..., 0],
        truncated=zeros[..., 0], slot=zeros[..., 0],
    )  # fmt: skip
    trajectory = Trajectory(steps, x[:, 0], x[:, 0], zeros[-1, -1], zeros[-1, -1][None])
    team = TEAM._replace(actor=TEAM.actor._replace(network=RecurrentNetwork({}, {})))
    found = batches.prepare(trajectory, team, LABELS, LABELS, blocks=blocks, clock=CLOCK)
    np.testing.assert_allclose(found.obs, standardise(found.legal), rtol=1e-6)
    np.testing.assert_array_equal(found.state, found.legal)
