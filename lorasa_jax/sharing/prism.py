"""Spectral sharing: singular directions in common, masks on the singular values per agent.

Agent i's kernel of every layer is

    W_i = U diag(m_i * s) V',    m_i = sigmoid(a_i),

with U [d, q], s [q] and V' [q, k] everybody's, q = min(d, k), and the logits a_i [q] of the layer
the agent's own. Biases, LayerNorms and a free log-std vector are shared. Two terms are added to the
loss: `sharing.orthogonality` times the mean over layers of |U'U - I|^2 + |V'V - I|^2, and
`sharing.diversity` times minus the mean square by which two agents' masks differ.
Source: Prism (Kim et al. 2026, arXiv 2602.06476, abstract; no code is public): shared directions
kept near-orthogonal by a regulariser, learned masks per agent, and a regulariser of their
diversity.
That masks are sigmoids, the form of the second term and both weights are this library's choices.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lorasa_jax.keys import convert, key
from lorasa_jax.policy.recurrence import matmul
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.layers import chosen
from lorasa_jax.sharing.scheme import Bank, Scheme, times
from lorasa_jax.sharing.ways import Sharing, register

LOGIT = 2.0  # of every mask at first: open, but where a sigmoid still has a slope


@dataclass(frozen=True)
class PrismKeys:
    """How strongly directions and masks are regularised."""

    orthogonality: float = key(
        0.1, "weight of the penalty on directions that are not orthonormal", least=0
    )
    diversity: float = key(0.01, "weight of the reward for masks that differ", least=0)


def prism(num_agents: int, keys: PrismKeys) -> Scheme:
    """Banks `shared` [1, ...] and `masks` {layer: [agent, q]}, the logits.

    `shared` is a network with {left, singular, right} in place of every kernel. All agents begin
    as one network: U and V' are its kernels' singular vectors, and s their singular values divided
    by what masks let through at first.
    """
    base = ps(num_agents)
    banks = {"shared": base.banks["net"], "masks": Bank(tuple(range(num_agents)))}

    def adopt(key, old):
        del key  # nothing is drawn
        shared, masks = dict(old["net"]), {}
        for layer in chosen(shared, ("*",)):
            parts = dict(shared[layer])
            left, singular, right = jnp.linalg.svd(parts.pop("kernel"), full_matrices=False)
            open_ = jax.nn.sigmoid(LOGIT)
            shared[layer] = {**parts, "left": left, "singular": singular / open_, "right": right}
            masks[layer] = jnp.full((num_agents, singular.shape[-1]), LOGIT)
        return {"shared": shared, "masks": masks}

    def init(key, fresh):
        return adopt(key, base.init(key, fresh))

    def combine(parts):
        (shared, axes), (masks, mask_axes) = parts["shared"], parts["masks"]
        net, axes = dict(shared), dict(axes)
        for layer, logits in masks.items():
            kernel = spectral(shared[layer], logits)
            net[layer] = {"kernel": kernel, "bias": shared[layer]["bias"]}
            axes[layer] = {"kernel": mask_axes[layer], "bias": axes[layer]["bias"]}
        return net, axes

    def penalty(trees, key):
        del key  # nothing is drawn
        directions = orthogonality({layer: trees["shared"][layer] for layer in trees["masks"]})
        apart = diversity(trees["masks"])
        loss = keys.orthogonality * directions - keys.diversity * apart
        return loss, {"orthogonality": directions, "mask_diversity": apart}

    return Scheme(banks, init, adopt, combine, penalty=penalty)


def spectral(parts: dict[str, jax.Array], logits: jax.Array) -> jax.Array:
    """U diag(sigmoid(a) * s) V' [..., d, k] of logits a [..., q]."""
    values = times(jax.nn.sigmoid(logits), parts["singular"])
    return matmul(times(parts["left"], values[..., None, :]), parts["right"])


def orthogonality(layers: dict) -> jax.Array:
    """The mean [] over layers of |U'U - I|^2 + |V'V - I|^2; parts [1, ...]."""

    def distance(columns):
        gram = matmul(columns.T, columns)
        return jnp.sum(jnp.square(gram - jnp.eye(gram.shape[0])))

    found = [distance(x["left"][0]) + distance(x["right"][0].T) for x in layers.values()]
    return jnp.stack(found).mean()


def diversity(masks: dict[str, jax.Array]) -> jax.Array:
    """The mean square [] of m_i - m_j over all entries of masks and pairs of agents i, j.

    masks: logits {layer: [agent, q]}. Twice the variance over agents, so that pairs are not formed.
    """
    values = jax.nn.sigmoid(jnp.concatenate(list(masks.values()), axis=-1))
    others = max(values.shape[0] - 1, 1)
    squares = jnp.square(values - values.mean(0, keepdims=True))
    return 2.0 * squares.sum(0).mean() / others


def _prism(given):
    keys = convert(PrismKeys, given.options, "sharing.")
    return Sharing((prism(given.num_agents, keys),), (ps(given.num_agents),))


register("prism", _prism, keys=PrismKeys)
