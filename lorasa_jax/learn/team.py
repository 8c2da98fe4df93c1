"""A team: networks and sharing schemes for one environment, and how to run and train them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lorasa_jax.policy.networks import RecurrentNetwork, Views
from lorasa_jax.sharing import Scheme, agent_counts


class Learner(NamedTuple):
    """Banks of parameters, and per trained bank the optimiser states of its entries."""

    banks: dict[str, Any]
    opt_state: dict[str, Any]


class Role(NamedTuple):
    """The actor's or the critic's side of a team: network, scheme, optimiser, input width.

    by_type: the scheme's agents are the environment's types, of which each agent has one for the
    length of an episode (`types_in`).
    """

    network: RecurrentNetwork
    scheme: Scheme
    optimiser: optax.GradientTransformation
    features: int
    by_type: bool = False


class Team(NamedTuple):
    """All that is static about who acts: environment, action distribution, actor and critic.

    clusters: the group of every agent, where the way of sharing has groups.
    """

    env: Any
    distribution: Any
    actor: Role
    critic: Role
    clusters: tuple[int, ...] | None = None


def adam(learning_rate: float, max_grad_norm: float) -> optax.GradientTransformation:
    """The paper's optimiser: Adam (eps 1e-5) behind a clip of the gradient's global norm."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5)
    )


def lora_plus(
    optimiser: optax.GradientTransformation, ratio: float
) -> optax.GradientTransformation:
    """An optimiser whose updates of adapters' B are `ratio` times as large.

    Hayou et al. 2024, arXiv 2402.12354: LoRA+. Under Adam it is B's learning rate. A ratio of 1
    gives the optimiser itself.
    """
    if ratio == 1:
        return optimiser

    def scaled(path, x):
        return ratio * x if path[-1] == jax.tree_util.DictKey("b") else x

    plus = optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))
    return optax.chain(optimiser, plus)


def start(role: Role, banks: dict[str, Any]) -> Learner:
    """A learner with fresh optimisers; frozen banks get none."""
    opt_state = {name: jax.vmap(role.optimiser.init)(banks[name]) for name in role.scheme.trained}
    return Learner(banks, opt_state)


def split(role: Role, banks: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trained and frozen banks."""
    trained = {name: banks[name] for name in role.scheme.trained}
    frozen = {name: tree for name, tree in banks.items() if name not in trained}
    return trained, frozen


def penalty(role: Role, banks: dict[str, Any], key: Any) -> tuple[Any, dict]:
    """The scheme's penalty: its gradient {trained bank: tree}, and its measures {name: []}.

    None and no measures for a scheme without one.
    """
    penalty_of = role.scheme.penalty
    if penalty_of is None:
        return None, {}
    trained, frozen = split(role, banks)
    return jax.grad(lambda trees: penalty_of({**frozen, **trees}, key), has_aux=True)(trained)


def after_update(role: Role, learner: Learner, reports: dict, when, key) -> tuple[Learner, dict]:
    """What the scheme does between updates; returns the learner, and measures {name: []}."""
    if role.scheme.after_update is None:
        return learner, {}
    banks, opt_state, measures = role.scheme.after_update(
        learner.banks, learner.opt_state, reports, when, key
    )
    return Learner(banks, opt_state), measures


def named(actor_measures: dict, critic_measures: dict) -> dict:
    """Measures of the actor's and the critic's scheme, as they are reported."""
    return actor_measures | {f"critic_{name}": x for name, x in critic_measures.items()}


def with_extra(gradient: Any, extra: Any) -> Any:
    """A gradient and, where there is one, that of a penalty."""
    return gradient if extra is None else jax.tree.map(jnp.add, gradient, extra)


def scaled(updates: Any, lr_scale: Any) -> Any:
    """An optimiser's updates at another learning rate, which Adam's are proportional to."""
    return updates if lr_scale is None else jax.tree.map(lambda x: lr_scale * x, updates)


def step(
    role: Role,
    learner: Learner,
    gradients: dict[str, Any],
    counts: jax.Array,
    lr_scale=None,
    extra: dict[str, Any] | None = None,
) -> tuple[Learner, jax.Array]:
    """One optimiser step for every entry of every trained bank, each with its own clip.

    gradients are those of a sum over samples, counts [agent] the samples behind them: every
    entry's gradient becomes the mean over the samples of the agents that use it, so that under
    full sharing all samples are averaged and under LoRA each agent minimises its own mean loss.
    lr_scale []: what the learning rate is multiplied by, if anything. extra: the gradient of a
    penalty, which is added to the means.

    Returns the learner and the largest gradient norm before clipping.
    """
    banks, opt_state, norms = dict(learner.banks), dict(learner.opt_state), []
    for name, gradient in gradients.items():
        samples = jnp.maximum(agent_counts(role.scheme.banks[name], counts), 1.0)
        mean = jax.vmap(lambda tree, n: jax.tree.map(lambda x: x / n, tree))(gradient, samples)
        mean = with_extra(mean, extra and extra[name])
        norms.append(jax.vmap(optax.global_norm)(mean).max())
        updates, opt_state[name] = jax.vmap(role.optimiser.update)(mean, learner.opt_state[name])
        banks[name] = optax.apply_updates(learner.banks[name], scaled(updates, lr_scale))
    return Learner(banks, opt_state), jnp.stack(norms).max()


def forward(
    network: RecurrentNetwork,
    weights: tuple[Any, Any],
    carry,
    x,
    first,
    *,
    agent_axis: int,
    prepared: bool = False,
    types: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Every agent's network on its own inputs.

    x [time, ..., features] with the agents along `agent_axis` (counted with time); carry has the
    agents one axis earlier, `first` [time, ...] has no agent axis: it is the environment's.
    prepared: whether x went through `network.prepare` before; then x may be `Views`, whose common
    part has an agent axis of one. types [time, ..., agent]: whose weights each agent uses, where
    the weights are those of types.
    """

    def apply(params, carry, x, first) -> Any:
        return network.apply({"params": params}, carry, x, first, prepared=prepared)

    tree, axes = weights
    carry, x = jax.tree.map(jnp.asarray, (carry, x))  # vmap would not convert NumPy arrays
    if not jax.tree.leaves(axes):
        # Agents are rows like any others: a matrix's gradient is one product, not a sum of many.
        # Measured for the eight agents of 3s5z at width 128: an update takes 0.8 times as long.
        first = jnp.expand_dims(first, agent_axis)
        return apply(tree, carry, x, first)
    if types is not None:
        first = jnp.expand_dims(first, agent_axis)
        return _by_type(apply, weights, carry, x, first, types)
    x_axes = agent_axis
    if isinstance(x, Views):
        x = x._replace(common=jnp.squeeze(x.common, agent_axis))
        x_axes = x._replace(common=None, own=agent_axis)
    return jax.vmap(
        apply,
        in_axes=(axes, agent_axis - 1, x_axes, None),
        out_axes=(agent_axis - 1, agent_axis),
    )(tree, carry, x, first)


def _by_type(apply, weights, carry, x, first, types):
    """Every type's network on all agents' inputs, and of what they give what is each agent's own.

    Within an episode an agent has one type, and where another begins the state is zeroed: so that
    in a sequence of steps, too, an agent's outputs are those of its type's network alone.
    """
    tree, axes = weights
    carry, outputs = jax.vmap(apply, in_axes=(axes, None, None, None))(tree, carry, x, first)

    def own(y, types):  # y [type, ..., agent, ..., feature]
        return jnp.take_along_axis(y, types[None, ..., None], axis=0)[0]

    return own(carry, types[-1]), {name: own(y, types) for name, y in outputs.items()}


def critic_values(
    team: Team, weights: tuple[Any, Any], carry, state, first
) -> tuple[jax.Array, jax.Array]:
    """The next carry of the critic, and V [env, agent] in normalised space, at one time step."""
    carry, out = forward(
        team.critic.network, weights, carry, state[None], first[None], agent_axis=2
    )
    return carry, out["value"][0, ..., 0]


def types_in(team: Team, env_state: Any) -> jax.Array | None:
    """Every agent's type [env, agent] in states of environments, where weights go by it."""
    return jax.vmap(team.env.types_of)(env_state) if team.actor.by_type else None
