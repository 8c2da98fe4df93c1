"""What MAPPO, A2PO and HAPPO have in common: numbers, state, losses, and gradients by blocks."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from lorasa_jax.envs.normalise import Observed
from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.learn import devices, losses, returns, rollout, value_norm
from lorasa_jax.learn.batch import Batch
from lorasa_jax.learn.rollout import Runner
from lorasa_jax.learn.team import Learner, Team, forward
from lorasa_jax.learn.value_norm import ValueNorm
from lorasa_jax.values import shown

TRUNCATIONS = ("bootstrap", "authors", "terminal")


def lr_decay(value: Any, key: str) -> str:
    """`none` or `linear`; true and false are taken for them."""
    word = ("linear" if value else "none") if isinstance(value, bool) else value
    if word not in ("none", "linear"):
        raise ConfigError(f"{key}={shown(value)} is not known; choose one of none, linear.")
    return word


@dataclass(frozen=True)
class Hyperparameters:
    """What all algorithms have; an algorithm with keys of its own derives from it.

    See the paper's Tables 3-9 for the values of each task. devices, over which the environments
    of all are split, `num_envs` on each, and lr_scale, what learning rates are multiplied by (None
    for 1; a traced number where they decay), are no keys: the loop sets them.
    """

    name: str = ""
    num_envs: int = key(None, "environments played side by side", least=1, cell=True)
    rollout_length: int = key(None, "steps per environment and update", least=1, cell=True)
    chunk_length: int = key(
        None, "steps that gradients reach back through the recurrent state", least=1, cell=True
    )
    epochs: int = key(None, "passes over the trajectory per update", least=1, cell=True)
    clip: float = key(
        None, "PPO's clip range: ratios count within 1 +- clip", above=0, below=1, cell=True,
        traced=True,
    )  # fmt: skip
    actor_lr: float = key(None, "learning rate of the actors", above=0, cell=True, traced=True)
    critic_lr: float = key(None, "learning rate of the critics", above=0, cell=True, traced=True)
    entropy_coef: float = key(None, "weight of the entropy bonus", least=0, cell=True, traced=True)
    gamma: float = key(None, "discount a step", above=0, most=1, cell=True, traced=True)
    gae_lambda: float = key(
        None, "decay of the advantages' traces", least=0, most=1, cell=True, traced=True
    )
    max_grad_norm: float = key(
        None, "clip of a gradient's global norm", above=0, cell=True, traced=True
    )
    ratio: str = key(
        "per_dimension", "whether each action dimension's ratio is clipped, or their product",
        choices=("per_dimension", "joint"),
    )  # fmt: skip
    truncation: str = key(
        "bootstrap",
        "at a time limit: value of the last observation, no weight (authors, MuJoCo), or an end "
        "(authors, maps)",
        choices=TRUNCATIONS,
    )
    minibatches: int = key(
        1, "gradient steps in a pass, on random parts of it", least=1, later="loop"
    )
    target_kl: float | None = key(
        None, "leave out an update's remaining gradient steps once the policy's KL is above this",
        above=0, later=True, traced=True,
    )  # fmt: skip
    lr_decay: str = key(
        "none", "linear: learning rates go to zero over the run", check=lr_decay,
        accepts="none, linear", later=True,
    )  # fmt: skip
    devices: int = 1
    lr_scale: Any = None

    def replace(self, **changes: Any) -> Self:
        """The same with other values."""
        return dataclasses.replace(self, **changes)


class TrainState(NamedTuple):
    """All that changes while a team learns.

    observed: running statistics of what agents and critics see, where observations are normalised.
    """

    key: jax.Array
    actor: Learner
    critic: Learner
    value_norm: ValueNorm
    runner: Runner
    observed: Observed | None = None


class Losses(NamedTuple):
    """Sums over samples of one pass, for gradients (policy, value) and for reports.

    measures: those of the action distribution, by name.
    """

    policy: jax.Array
    value: jax.Array
    entropy: jax.Array
    clipped: jax.Array
    kl: jax.Array
    measures: dict[str, jax.Array]


def estimate(trajectory, norm: ValueNorm, hp: Hyperparameters) -> tuple[jax.Array, jax.Array]:
    """Advantages and value targets [time, env, agent] in units of return."""
    steps = experience(trajectory, norm, hp)
    advantages = returns.gae(gae_lambda=hp.gae_lambda, **steps)
    return advantages, advantages + steps["values"]


def experience(trajectory, norm: ValueNorm, hp: Hyperparameters) -> dict[str, Any]:
    """What `returns.gae` and `returns.steps` take: [time, env, agent], in units of return."""
    trajectory = trajectory._replace(
        last_value=value_norm.denormalise(norm, trajectory.last_value),
        end_values=value_norm.denormalise(norm, trajectory.end_values),
    )
    steps = jax.tree.map(rollout.merge_time, trajectory.transitions)
    values = value_norm.denormalise(norm, steps.value)
    return {
        "rewards": jnp.broadcast_to(steps.reward[..., None], values.shape),
        "values": values,
        "next_values": rollout.next_values(trajectory, values),
        "terminated": jnp.broadcast_to(steps.terminated[..., None], values.shape).astype(float),
        "truncated": jnp.broadcast_to(steps.truncated[..., None], values.shape).astype(float),
        "gamma": hp.gamma,
        "truncation": hp.truncation,
    }


def gradients(
    weights: Callable[[Any], tuple[Any, Any]],
    trained: Any,
    norm: ValueNorm,
    batch: Batch,
    team: Team,
    hp,
    clip,
) -> tuple[Any, Losses]:
    """The gradient of the batch's summed loss with respect to `trained`, and the sums.

    weights(trained) -> (actor weights, critic weights). The batch is walked block by block; sums
    are those of all devices.
    """

    def loss(trained, block):
        actor, critic = weights(trained)
        sums = sum_losses(actor, critic, norm, block, team, hp, clip)
        without = isinstance(hp.entropy_coef, int | float) and hp.entropy_coef == 0  # not traced
        bonus = 0.0 if without else hp.entropy_coef * sums.entropy
        return sums.policy + sums.value - bonus, sums

    def accumulate(total, block):
        new = jax.grad(loss, has_aux=True)(trained, block)
        return jax.tree.map(jnp.add, total, new), None

    first = jax.tree.map(lambda x: x[0], batch)
    shapes = jax.eval_shape(jax.grad(loss, has_aux=True), trained, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return devices.total(jax.lax.scan(accumulate, zeros, batch)[0], hp)


def sum_losses(actor_weights, critic_weights, norm, block: Batch, team: Team, hp, clip) -> Losses:
    """Sums over one block's samples [step, agent, sequence]; only active ones count for policy."""
    log_prob, outputs = log_probs(actor_weights, block, team)
    change = log_prob - block.log_prob
    exists = team.distribution.dimensions(block.legal)
    if hp.ratio == "joint":
        change, exists = change.sum(-1, keepdims=True), jnp.ones_like(exists[..., :1])
    ratio = jnp.exp(change)
    active = block.active.astype(ratio.dtype)
    clipped = (jnp.abs(ratio - 1.0) > clip).astype(ratio.dtype)
    policy = losses.policy_loss(ratio, block.advantage, clip, block.others)
    entropy = team.distribution.entropy(outputs, block.legal)
    _, out = forward(
        team.critic.network, critic_weights, block.critic_carry, block.state, block.first,
        agent_axis=1, prepared=True,
    )  # fmt: skip
    target = jnp.moveaxis(value_norm.normalise(norm, jnp.moveaxis(block.target, 1, -1)), -1, 1)
    value = losses.value_loss(out["value"][..., 0], block.value, target, hp.clip)
    return Losses(
        policy=jnp.sum(policy * active),
        value=jnp.sum(value),
        entropy=jnp.sum(entropy * active),
        clipped=jnp.sum(mean_over(exists, clipped) * active),
        kl=jnp.sum((ratio - 1.0 - change).sum(-1) * active),
        measures={
            name: jnp.sum(value * active)
            for name, value in team.distribution.measures(outputs, block.legal).items()
        },
    )


def mean_over(exists: jax.Array, x: jax.Array) -> jax.Array:
    """The mean over the last axis of the entries of x that exist; both [..., dimension]."""
    return jnp.sum(x * exists, axis=-1) / jnp.maximum(exists.sum(-1), 1.0)


def step_keys(key: jax.Array, hp: Hyperparameters) -> jax.Array:
    """A key [minibatch] for every gradient step of a pass; `key` itself stays of use."""
    return jax.random.split(jax.random.fold_in(key, 1), hp.minibatches)


def log_probs(actor_weights, block: Batch, team: Team):
    """(log-probabilities of the stored actions [step, agent, sequence, dimension], outputs)."""
    _, outputs = forward(
        team.actor.network, actor_weights, block.actor_carry, block.obs, block.first,
        agent_axis=1, prepared=True, types=block.types,
    )  # fmt: skip
    return team.distribution.log_prob(outputs, block.legal, block.action), outputs
