"""What training reports of an update, as means over samples."""

import jax
import jax.numpy as jnp

from lorasa_jax.envs.types import Discrete
from lorasa_jax.learn import devices
from lorasa_jax.learn.ppo import Hyperparameters, Losses
from lorasa_jax.learn.team import Team


def no_legal_action(trajectory, team: Team, hp: Hyperparameters) -> dict[str, jax.Array]:
    """The share [] of active agents' samples in which no action was legal, by the metric's name.

    Nothing where actions are continuous: there `legal` tells which dimensions exist.
    """
    if not isinstance(team.env.action_space, Discrete):
        return {}
    active, legal = trajectory.transitions.active, trajectory.transitions.legal
    without = jnp.sum(active & ~legal.any(-1)).astype(float)
    without, count = devices.total((without, active.sum().astype(float)), hp)
    return {"no_legal_action": without / jnp.maximum(count, 1.0)}


def step_report(sums: Losses, acted, samples, actor_norm, critic_norm) -> dict[str, jax.Array]:
    """What a gradient step reports: means over samples, from sums."""
    return {
        "policy_loss": sums.policy / acted,
        "value_loss": sums.value / samples,
        "entropy": sums.entropy / acted,
        "clip_fraction": sums.clipped / acted,
        "approx_kl": sums.kl / acted,
        "actor_grad_norm": actor_norm,
        "critic_grad_norm": critic_norm,
        **{name: value / acted for name, value in sums.measures.items()},
    }
