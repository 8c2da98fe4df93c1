"""MAPPO whose clip is narrower by a factor."""

from lorasa_jax.learn import algorithms, mappo


def update(state, team, hp, *, narrow):
    return mappo.update(state, team, hp.replace(clip=hp.clip / narrow))


algorithms.register("narrow", update, like="mappo", options={"narrow": 2.0})
