"""MAPPO that updates twice on what it collects next."""

from lorasa_jax.learn import algorithms, mappo


def update(state, team, hp):
    state, _, _ = mappo.update(state, team, hp)
    return mappo.update(state, team, hp)


algorithms.register("twice", update, like="mappo")
