"""Learnable masks: every agent shrinks the weights of one network by thresholds of its own.

Agent i's kernel is

    W_i = sign(W) * relu(|W| - t_i),    t_i = sigmoid(s_i),

with W [d, k] everybody's and s_i [d, k] the agent's own. Biases, LayerNorms, a free log-std vector
and layers outside `sharing.layers` are shared. A weight that falls below the threshold has no
gradient for that agent. The loss that is added drives masks M_i = 1[|W| > t_i] apart:

    L = - sum_l c_l sum_ij |M_i - M_j| |W| / (n (n - 1) #W),    c_l = 1, 2, 4, 8, 8 ...

over layers l by depth and ordered pairs of agents, with a straight-through gradient to thresholds
alone, that of a mask passing tanh. Its weight is |diversity * P / D|, P and D being the means of
the policy's loss and of L over the last 100 updates. Every `sharing.reset_every` updates a share of
the weights that are masked for all agents is drawn anew, with new thresholds; not in the last such
interval of a phase.
Source: Kaleidoscope (Li et al. 2024, arXiv 2410.08540) and its authors' code. Its ensemble of
masked critics is not here; c_l stops at 8, as its networks have up to four layers; Adam's means of
what is drawn anew are set to zero.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.layers import LayerKeys, chosen
from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.ways import Sharing, register

LEAST, RANGE = -10.0, 5.0  # thresholds' logits begin uniform on [LEAST, LEAST + RANGE]
DEEPEST = 3  # from this layer on all have the weight 2^DEEPEST
WINDOW = 100  # updates whose losses the weight of the diversity is relative to
STATE = "losses"


@dataclass(frozen=True)
class KaleidoscopeKeys(LayerKeys):
    """How masks are driven apart, and what is done about weights that nobody uses."""

    diversity: float = key(
        0.1, "size of the diversity loss in relation to the policy's loss", least=0
    )
    reset_every: int = key(250, "updates between resets of weights that all mask", least=1)
    reset_ratio: float = key(0.5, "share of them that is drawn anew", least=0, most=1)


def kaleidoscope(num_agents: int, keys: KaleidoscopeKeys) -> Scheme:
    """Banks `shared` [1, ...], a network, `thresholds` {layer: [agent, d, k]} and `losses`.

    `losses` {policy, diversity: [1, 100]} are those of the last updates, newest first.
    Thresholds begin at most at sigmoid(-5) = 0.0067: nearly as full sharing.
    """
    base, everyone = ps(num_agents), Bank((0,) * num_agents)
    banks = {
        "shared": everyone,
        "thresholds": Bank(tuple(range(num_agents))),
        STATE: everyone._replace(trained=False, memory=True),
    }

    def adopt(key, old):
        net = old["net"]
        layers = chosen(net, keys.patterns)
        thresholds = {
            layer: first_thresholds(layer_key, (num_agents, *net[layer]["kernel"].shape[1:]))
            for layer, layer_key in zip(layers, jax.random.split(key, len(layers)), strict=True)
        }
        window = jnp.zeros((1, WINDOW))
        losses = {"policy": window, "diversity": window}
        return {"shared": net, "thresholds": thresholds, STATE: losses}

    def init(key, fresh):
        net_key, threshold_key = jax.random.split(key)
        return adopt(threshold_key, base.init(net_key, fresh))

    def combine(parts):
        (net, axes), (thresholds, threshold_axes) = parts["shared"], parts["thresholds"]
        net, axes = dict(net), dict(axes)
        for layer, logits in thresholds.items():
            net[layer] = {**net[layer], "kernel": shrunk(net[layer]["kernel"], logits)}
            axes[layer] = {**axes[layer], "kernel": threshold_axes[layer]}
        return net, axes

    def penalty(trees, key):
        del key  # nothing is drawn
        loss = diversity_loss(_kernels(trees), trees["thresholds"])
        weight = weight_of(trees[STATE], keys.diversity)
        return weight * loss, {"diversity_loss": loss, "diversity_weight": weight}

    def after_update(trees, opt_state, reports, when, key):
        losses = appended(trees[STATE], reports["policy_loss"], reports["diversity_loss"])
        due = (when.done > 0) & (when.done % keys.reset_every == 0)
        due &= when.done <= when.of - keys.reset_every
        chosen_ = redrawn_weights(key, trees, jnp.where(due, keys.reset_ratio, 0.0))
        trees, opt_state = redrawn(jax.random.fold_in(key, 1), trees, opt_state, chosen_)
        entries = sum(x.size for x in chosen_.values())
        kernels = _kernels(trees)
        used = sum(open_(kernels[layer], x).sum() for layer, x in trees["thresholds"].items())
        measures = {
            "sparsity": 1.0 - used / (num_agents * entries),
            "redrawn": sum(x.sum().astype(float) for x in chosen_.values()),
        }
        return {**trees, STATE: losses}, opt_state, measures

    return Scheme(banks, init, adopt, combine, penalty=penalty, after_update=after_update)


def _kernels(trees):
    """{layer: [d, k]} of the shared network's layers that have thresholds."""
    return {layer: trees["shared"][layer]["kernel"][0] for layer in trees["thresholds"]}


def first_thresholds(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Logits of thresholds as they begin."""
    return jax.random.uniform(key, shape, minval=LEAST, maxval=LEAST + RANGE)


def shrunk(kernel: jax.Array, logits: jax.Array) -> jax.Array:
    """sign(W) * relu(|W| - sigmoid(s)) [..., d, k] of a kernel [d, k] and logits [..., d, k]."""
    return times(jax.nn.relu(_above(kernel, logits)), jnp.sign(kernel))


def _above(kernel, logits):
    """|W| - t [..., d, k]."""
    kernel = jnp.broadcast_to(jnp.abs(kernel), logits.shape)
    return kernel - jax.nn.sigmoid(logits)


@jax.custom_vjp
def positive(x: jax.Array) -> jax.Array:
    """1 where x is above 0, else 0; its gradient is the tanh of the output's (authors' code)."""
    return (x > 0).astype(float)


positive.defvjp(lambda x: (positive(x), None), lambda _, gradient: (jnp.tanh(gradient),))


def open_(kernel: jax.Array, logits: jax.Array) -> jax.Array:
    """Masks [..., d, k]: 1 where a weight is above the threshold."""
    return positive(_above(jax.lax.stop_gradient(kernel), logits))


def diversity_loss(kernels: dict[str, jax.Array], thresholds: dict[str, jax.Array]) -> jax.Array:
    """L [] as above, of kernels {layer: [d, k]} and logits {layer: [agent, d, k]}.

    Where masks are 0 or 1 |M_i - M_j| is (M_i - M_j)^2, whose sum over pairs needs no pairs; its
    gradient is twice that of the former.
    """
    total, entries, agents = jnp.zeros(()), 0, 1
    for depth, (layer, logits) in enumerate(_ordered(thresholds)):
        kernel, agents = kernels[layer], logits.shape[0]
        masks = open_(kernel, logits)
        squares = 2.0 * (agents * jnp.square(masks).sum(0) - jnp.square(masks.sum(0)))
        pairs = 0.5 * (squares + jax.lax.stop_gradient(squares))
        size = jax.lax.stop_gradient(jnp.abs(kernel))
        total += 2.0 ** min(depth, DEEPEST) * jnp.sum(pairs * size)
        entries += kernel.size
    return -total / (max(agents * (agents - 1), 1) * entries)


def _ordered(thresholds):
    """Layers by depth; compiled code has them by name."""
    named = {layer: {"kernel": x} for layer, x in thresholds.items()}
    return [(layer, thresholds[layer]) for layer in chosen(named, ("*",))]


def weight_of(losses: dict[str, jax.Array], size: float) -> jax.Array:
    """|size * P / D| [] of the last losses {policy, diversity: [1, 100]}; 0 where D is 0."""
    policy, diversity = losses["policy"].sum(), losses["diversity"].sum()
    known = diversity != 0
    return jnp.where(known, jnp.abs(size * policy / jnp.where(known, diversity, 1.0)), 0.0)


def appended(losses: dict[str, jax.Array], policy, diversity) -> dict[str, jax.Array]:
    """The losses with those of one more update in front."""

    def pushed(window, new):
        return jnp.concatenate([new.reshape(1, 1), window[:, :-1]], axis=1)

    return {
        "policy": pushed(losses["policy"], policy),
        "diversity": pushed(losses["diversity"], diversity),
    }


def redrawn_weights(key: jax.Array, trees: dict, ratio: jax.Array) -> dict[str, jax.Array]:
    """{layer: [d, k]}: weights masked for all agents, each chosen with probability `ratio` []."""
    layers, chosen_ = _kernels(trees), {}
    for number, (layer, kernel) in enumerate(layers.items()):
        unused = open_(kernel, trees["thresholds"][layer]).sum(0) == 0
        noise = jax.random.uniform(jax.random.fold_in(key, number), kernel.shape)
        chosen_[layer] = unused & (noise < ratio)
    return chosen_


def redrawn(key: jax.Array, trees: dict, opt_state: dict, chosen_: dict[str, jax.Array]):
    """Trees and optimiser states whose `chosen_` {layer: [d, k]} weights and thresholds are new.

    Weights are uniform on +-1/sqrt(d), Kaiming's with a = sqrt(5).
    """
    shared, thresholds = dict(trees["shared"]), dict(trees["thresholds"])
    for number, (layer, new) in enumerate(chosen_.items()):
        kernel_key, logit_key = jax.random.split(jax.random.fold_in(key, number))
        kernel, logits = shared[layer]["kernel"], thresholds[layer]
        bound = kernel.shape[-2] ** -0.5
        drawn = jax.random.uniform(kernel_key, kernel.shape, minval=-bound, maxval=bound)
        shared[layer] = {**shared[layer], "kernel": jnp.where(new[None], drawn, kernel)}
        fresh = first_thresholds(logit_key, logits.shape)
        thresholds[layer] = jnp.where(new[None], fresh, logits)

    def forgotten(path, x):
        """An optimiser's mean of a kernel or of thresholds, zero where these are new."""
        names = [step.key for step in path if isinstance(step, jax.tree_util.DictKey)]
        layer = next((name for name in names if name in chosen_), None)
        if layer is None or x.ndim != 3:  # a bias, or a count
            return x
        return jnp.where(chosen_[layer][None], 0.0, x)

    changed = {**trees, "shared": shared, "thresholds": thresholds}
    return changed, jax.tree_util.tree_map_with_path(forgotten, opt_state)


def _kaleidoscope(given):
    keys = convert(KaleidoscopeKeys, given.options, "sharing.")
    return Sharing((kaleidoscope(given.num_agents, keys),), (ps(given.num_agents),))


register("kaleidoscope", _kaleidoscope, keys=KaleidoscopeKeys)
