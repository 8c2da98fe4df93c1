"""Gradient steps that stop once the policy has moved too far (`algo.target_kl`)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def guarded(step: Callable, target_kl: float | None) -> Callable:
    """step(carry, input) -> (carry, report), made to do nothing once the policy has moved too far.

    The new step's carry is (carry, stopped []). The first step whose report says `approx_kl` above
    target_kl is not taken, nor is any later one; that KL is of the policy that the step starts
    from, to the one that played. Reports say then whether a step `ran` and was `taken`, for
    `means`. Without a target nothing stops.
    """

    def always(state, inputs):
        carry, report = step(state[0], inputs)
        return (carry, state[1]), report

    def until(state, inputs):
        carry, stopped = state

        def go():
            moved, report = step(carry, inputs)
            exceeded = report["approx_kl"] > target_kl
            kept = jax.tree.map(lambda new, old: jnp.where(exceeded, old, new), moved, carry)
            taken = (~exceeded).astype(float)
            return (kept, exceeded), {**report, "ran": jnp.ones(()), "taken": taken}

        def skip():
            shapes = jax.eval_shape(go)[1]
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(stopped, skip, go)

    return always if target_kl is None else until


def means(reports: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Means [] over the steps [...] that ran; `gradient_steps`: how many of them were taken."""
    reports = dict(reports)
    if "ran" not in reports:
        return jax.tree.map(jnp.mean, reports)
    ran, taken = reports.pop("ran"), reports.pop("taken")
    averages = jax.tree.map(lambda x: jnp.sum(x) / jnp.maximum(ran.sum(), 1.0), reports)
    return {**averages, "gradient_steps": taken.sum()}
