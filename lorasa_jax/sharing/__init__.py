"""Ways of sharing parameters: each a pure function from parameters to every agent's weights."""

# Each of these registers its row.
from lorasa_jax.sharing import (
    bias,
    hps,
    hypermarl,
    kaleidoscope,
    mixture,
    prism,
    ps_embed,
    roles,
    sequence,
    shared_lora,
    snp_ps,
)
from lorasa_jax.sharing.full import grouped, nps, ps
from lorasa_jax.sharing.heads import mtl
from lorasa_jax.sharing.lora import LoraSpec, adapted
from lorasa_jax.sharing.scheme import (
    REGISTRY,
    Bank,
    Given,
    Scheme,
    Sharing,
    agent_counts,
    entry_of,
    gather,
    register,
)
from lorasa_jax.sharing.seps import ClusterKeys

REGISTRY.complete()

__all__ = [
    "REGISTRY", "Bank", "ClusterKeys", "Given", "LoraSpec", "Scheme", "Sharing", "adapted",
    "agent_counts", "bias", "entry_of", "gather", "grouped", "hps", "hypermarl", "kaleidoscope",
    "mixture", "mtl", "nps", "prism", "ps", "ps_embed", "register",
    "roles", "sequence", "shared_lora", "snp_ps",
]  # fmt: skip
