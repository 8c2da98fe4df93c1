"""The algorithms by name. A new one is a file with an `update` and one row here."""

from lorasa_jax.learn import a2po, mappo

# name -> update(state, team, hyperparameters) -> (state, report, episodes)
UPDATES = {"mappo": mappo.update, "a2po": a2po.update, "happo": a2po.update}
