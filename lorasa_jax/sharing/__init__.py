"""Ways of sharing parameters: each a pure function from parameters to every agent's weights."""

from lorasa_jax.sharing.scheme import *  # noqa: F403
