"""Kinds of adapters: what each agent trains of a layer, and how it changes the layer's kernel.

Kernels are laid out as x W with W [d, k], so that A [d, r] reads a layer's input and B [r, k]
writes its output: PEFT's `lora_A` and `lora_B`, transposed. s is the scaling, see LoraSpec.

| kind | agent i's kernel | own to agent i | common to the agents of a backbone |
|---|---|---|---|
| lora | W + s A_i B_i | A_i, B_i | |
| dora | (norm(W) + m_i) V_i / norm(V_i), V_i = W + s A_i B_i | A_i, B_i, m_i [k] | |
| vera | W + A diag(d_i) B diag(b_i) | d_i [r], b_i [k] | A, B random and frozen |
| lora_xs | W + s A R_i B | R_i [r, r] | A, B of W's SVD, frozen |
| ia3 | W diag(l_i) | l_i [k] | |
| mtl_lora | W + s A L_i sum_n softmax(w_i / tau)_n B_n | L_i [r, r], w_i [n] | A, B_n trained |
| svd | W + s P_i diag(l_i) Q_i | P_i [d, r], l_i [r], Q_i [r, k] | |

Every kind begins as the backbone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.errors import ConfigError
from lorasa_jax.keys import key
from lorasa_jax.policy.recurrence import matmul
from lorasa_jax.sharing.scheme import plus, times
from lorasa_jax.values import listed

Parts = dict[str, jax.Array]

UP_PROJECTIONS, TEMPERATURE = 3, 0.1  # MTL-LoRA's n and tau, as in its authors' script
VERA_D = 0.1  # VeRA's d at the start, its paper's default and PEFT's `d_initial`


class Kind(NamedTuple):
    """A kind of adapter, as functions of one layer.

    own(key, (d, k), rank, init, agents) -> {part: [agent, ...]}: what each agent trains.
    merge(kernel, own, factors, scale) -> kernel [..., d, k]: leading axes are those of the parts
      given, broadcast.
    factors(key, kernel [d, k], rank) -> {part: [...]}: what the agents of a backbone have in
      common, where there is such; trained says whether it is.
    additive: whether what merge adds does not depend on the kernel given to it.
    ranked, scaled: whether rank and scaling mean something. trains_b: whether it trains a B, which
    may have a learning rate of its own. inits: the ways to begin that it knows.
    """

    own: Callable[..., Parts]
    merge: Callable[[jax.Array, Parts, Parts, float], jax.Array]
    factors: Callable[[jax.Array, jax.Array, int], Parts] | None = None
    trained: bool = False
    additive: bool = True
    ranked: bool = True
    scaled: bool = True
    trains_b: bool = False
    inits: tuple[str, ...] = ("paper",)


def _uniform(key, shape, bound):
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def low_rank(own: Parts, scale: float) -> jax.Array | None:
    """s A B [..., d, k], or the full matrix in its stead; None if there is neither."""
    return scale * matmul(own["a"], own["b"]) if "a" in own else own.get("full")


def lora_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """A [agent, d, r] and B [agent, r, k] whose product is zero.

    init `paper`: A zero, B uniform on +-1/sqrt(r) (LoRASA, Algorithm 2, and its authors' code);
    `peft`: A uniform on +-1/sqrt(d), which is Kaiming's with a = sqrt(5), B zero (LoRA, Sec. 4.1,
    and PEFT). Where r >= min(d, k): a full zero matrix [agent, d, k].
    """
    d, k = shape
    if rank >= min(d, k):
        return {"full": jnp.zeros((agents, d, k))}
    return factored_own(key, shape, rank, init, agents)


def factored_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """`lora_own`'s A and B at any rank, the smaller of d and k at most."""
    d, k = shape
    rank = min(rank, d, k)
    if init == "peft":
        a = _uniform(key, (agents, d, rank), d**-0.5)
        return {"a": a, "b": jnp.zeros((agents, rank, k))}
    b = _uniform(key, (agents, rank, k), rank**-0.5)
    return {"a": jnp.zeros((agents, d, rank)), "b": b}


def lora_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W + s A_i B_i [..., d, k] (Hu et al. 2021, arXiv 2106.09685, Eq. 3)."""
    delta = low_rank(own, scale)
    return kernel if delta is None else plus(kernel, delta)


def dora_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """LoRA's parts, and the magnitude's difference m [agent, k] from the backbone's norms: zero."""
    return {
        **lora_own(key, shape, rank, init, agents),
        "magnitude": jnp.zeros((agents, shape[1])),
    }


def dora_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """(norm(W) + m_i) V_i / norm(V_i) [..., d, k], V_i = W + s A_i B_i, a norm per output.

    Liu et al. 2024, arXiv 2402.09353, Eq. 5; norm(V_i) is a constant to the gradient (Sec. 4.3,
    Eq. 11). That m is kept as a difference changes nothing: Adam moves both alike.
    """
    changed = lora_merge(kernel, own, factors, scale)
    before, after = (
        jax.lax.stop_gradient(jnp.linalg.norm(x, axis=-2, keepdims=True)) for x in (kernel, changed)
    )
    wanted = plus(before, own["magnitude"][..., None, :])
    return times(changed, wanted / jnp.where(after > 0, after, 1.0))


def vera_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """d [agent, r] of 0.1 and b [agent, k] of zero (VeRA, Sec. 3.3)."""
    return {
        "vector_d": jnp.full((agents, rank), VERA_D), "vector_b": jnp.zeros((agents, shape[1])),
    }  # fmt: skip


def vera_factors(key, kernel: jax.Array, rank: int) -> Parts:
    """A [d, r] and B [r, k], Kaiming-uniform: on +-sqrt(6 / rows) (VeRA, Sec. 3.3, and PEFT)."""
    d, k = kernel.shape
    a_key, b_key = jax.random.split(key)
    return {
        "a": _uniform(a_key, (d, rank), (6 / d) ** 0.5),
        "b": _uniform(b_key, (rank, k), (6 / rank) ** 0.5),
    }


def vera_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W + A diag(d_i) B diag(b_i) [..., d, k] (Kopiczko et al. 2024, arXiv 2310.11454, Eq. 2)."""
    inner = times(factors["a"], own["vector_d"][..., None, :])
    outer = times(matmul(inner, factors["b"]), own["vector_b"][..., None, :])
    return plus(kernel, outer)


def xs_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """R [agent, r, r] of zero, where LoRA-XS draws it with a deviation of 1e-5; r <= min(d, k)."""
    rank = min(rank, *shape)
    return {"r": jnp.zeros((agents, rank, rank))}


def xs_factors(key, kernel: jax.Array, rank: int) -> Parts:
    """A = U_r S_r [d, r] and B = V_r^T [r, k] of the kernel's SVD (LoRA-XS, Sec. 3)."""
    left, singular, right = jnp.linalg.svd(kernel, full_matrices=False)
    rank = min(rank, *kernel.shape)
    return {"a": left[:, :rank] * singular[None, :rank], "b": right[:rank]}


def xs_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W + s A R_i B [..., d, k] (Balazy et al. 2024, arXiv 2405.17604, Sec. 3)."""
    return plus(kernel, scale * matmul(matmul(factors["a"], own["r"]), factors["b"]))


def ia3_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """l [agent, k] of ones."""
    return {"ia3": jnp.ones((agents, shape[1]))}


def ia3_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W diag(l_i) [..., d, k] (Liu et al. 2022, arXiv 2205.05638, Sec. 3.3), biases as they are."""
    return times(kernel, own["ia3"][..., None, :])


def mtl_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """L [agent, r, r] of identities and w [agent, n] uniform on +-1/sqrt(n) (authors' code).

    Were w zero, all B_n would have the same gradient and stay the same. r <= min(d, k).
    """
    eye = jnp.eye(min(rank, *shape))
    return {
        "lambda": jnp.broadcast_to(eye, (agents, *eye.shape)),
        "mix": _uniform(key, (agents, UP_PROJECTIONS), UP_PROJECTIONS**-0.5),
    }


def mtl_factors(key, kernel: jax.Array, rank: int) -> Parts:
    """A [d, r] uniform on +-1/sqrt(d) and B [n, r, k] of zero (authors' code)."""
    d, k = kernel.shape
    rank = min(rank, d, k)
    return {"a": _uniform(key, (d, rank), d**-0.5), "b": jnp.zeros((UP_PROJECTIONS, rank, k))}


def mtl_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W + s A L_i sum_n softmax(w_i / tau)_n B_n [..., d, k].

    Yang et al. 2024, arXiv 2410.09437, Sec. 3.2; an agent is what a task is there.
    """
    share = jax.nn.softmax(own["mix"] / TEMPERATURE)
    b = jnp.sum(times(share[..., None, None], factors["b"]), axis=-3)
    return plus(kernel, scale * matmul(matmul(factors["a"], own["lambda"]), b))


def svd_own(key, shape: tuple[int, int], rank: int, init: str, agents: int) -> Parts:
    """P [agent, d, r] and Q [agent, r, k] normal, of unit length in the mean, and l of zero.

    AdaLoRA's start (Sec. 3.1), whose authors' code has a deviation of 0.02; r <= min(d, k).
    """
    d, k = shape
    rank = min(rank, d, k)
    left_key, right_key = jax.random.split(key)
    return {
        "left": d**-0.5 * jax.random.normal(left_key, (agents, d, rank)),
        "singular": jnp.zeros((agents, rank)),
        "right": k**-0.5 * jax.random.normal(right_key, (agents, rank, k)),
    }


def svd_merge(kernel: jax.Array, own: Parts, factors: Parts, scale: float) -> jax.Array:
    """W + s P_i diag(l_i) Q_i [..., d, k] (Zhang et al. 2023, arXiv 2303.10512, Eq. 3)."""
    left = times(own["left"], own["singular"][..., None, :])
    return plus(kernel, scale * matmul(left, own["right"]))


KINDS = {
    "lora": Kind(lora_own, lora_merge, trains_b=True, inits=("paper", "peft")),
    "dora": Kind(dora_own, dora_merge, additive=False, trains_b=True, inits=("paper", "peft")),
    "vera": Kind(vera_own, vera_merge, vera_factors, scaled=False),
    "lora_xs": Kind(xs_own, xs_merge, xs_factors),
    "ia3": Kind(ia3_own, ia3_merge, additive=False, ranked=False, scaled=False),
    "mtl_lora": Kind(mtl_own, mtl_merge, mtl_factors, trained=True, trains_b=True),
    "svd": Kind(svd_own, svd_merge),
}  # fmt: skip
# What adapters can be; `factored` is lora where ranks have to mean something at any size.
FORMS = {**KINDS, "factored": KINDS["lora"]._replace(own=factored_own)}


@dataclass(frozen=True)
class KindKeys:
    """The kind of adapter; see KINDS."""

    kind: str = key("lora", "kind of adapter", choices=tuple(KINDS), later=True)
    scaling: str = key(
        "standard", "alpha / rank, or alpha / sqrt(rank)", choices=("standard", "rslora"),
        later=True,
    )  # fmt: skip
    init: str = key(
        "paper", "A zero and B uniform, or A Kaiming-uniform and B zero",
        choices=("paper", "peft"), later=True,
    )  # fmt: skip
    lr_ratio: float = key(1.0, "learning rate of B over that of A (LoRA+)", above=0, later=True)

    def check_kind(self) -> None:
        """Refuses keys that mean nothing to the kind.

        Raises:
          ConfigError: with one sentence.
        """
        kind = KINDS[self.kind]
        can = {
            "scaling": self.scaling == "standard" or kind.scaled,
            "init": self.init in kind.inits,
            "lr_ratio": self.lr_ratio == 1 or kind.trains_b,
            "alpha": getattr(self, "alpha", None) is None or kind.scaled,
            "alpha_pattern": not getattr(self, "alpha_pattern", None) or kind.scaled,
            "rank_pattern": not getattr(self, "rank_pattern", None) or kind.ranked,
        }
        for name in (name for name, sound in can.items() if not sound):
            raise ConfigError(
                f"sharing.{name}={getattr(self, name)} means nothing to sharing.kind={self.kind}; "
                f"drop it or choose one of {listed(_kinds_with(name))}."
            )
        if self.scaling == "rslora" and can_not_tell_alpha(self):
            raise ConfigError(
                "sharing.scaling=rslora with sharing.rank_pattern needs sharing.alpha; give it."
            )


def can_not_tell_alpha(keys: Any) -> bool:
    """Whether every layer's scaling would be 1 for want of an alpha."""
    return keys.alpha is None and bool(keys.rank_pattern)


def _kinds_with(name: str) -> list[str]:
    """The kinds that a key means something to."""
    knows = {
        "init": lambda kind: len(kind.inits) > 1,
        "lr_ratio": lambda kind: kind.trains_b,
        "rank_pattern": lambda kind: kind.ranked,
    }.get(name, lambda kind: kind.scaled)
    return [name for name, kind in KINDS.items() if knows(kind)]
