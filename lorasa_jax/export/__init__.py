"""Finished policies as files that other programs can load: `python -m lorasa_jax.export`."""
