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
from lorasa_jax.sharing.lora import adapted
from lorasa_jax.sharing.scheme import Bank, Scheme, agent_counts, entry_of, gather
from lorasa_jax.sharing.seps import ClusterKeys
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.sharing.ways import REGISTRY, Given, Sharing, register

REGISTRY.complete()

__all__ = [
    "REGISTRY", "Bank", "ClusterKeys", "Given", "LoraSpec", "Scheme", "Sharing", "adapted",
    "agent_counts", "bias", "entry_of", "gather", "grouped", "hps", "hypermarl", "kaleidoscope",
    "mixture", "mtl", "nps", "prism", "ps", "ps_embed", "register",
    "roles", "sequence", "shared_lora", "snp_ps",
]  # fmt: skip
