"""One adapter for all agents: the control that tells specialising from freezing.

As ps_lora, but every agent's weight is the same W + (alpha / r) A B. Both freeze the shared network
and train the same small set of directions with fresh optimisers; what ps_lora has beyond this
control is owed to adapters of the agents' own, not to the freeze, the restart or the low rank.
Source: a control of this library; adapters after LoRASA, Sec. 2.2, and Hu et al. 2022, Eq. 3.
"""

from lorasa_jax.registry import Phase
from lorasa_jax.sharing.full import ps
from lorasa_jax.sharing.lora import adapted
from lorasa_jax.sharing.lora_keys import LoraKeys
from lorasa_jax.sharing.scheme import Scheme
from lorasa_jax.sharing.spec import LoraSpec
from lorasa_jax.sharing.ways import Sharing, register


def shared_lora(num_agents: int, spec: LoraSpec) -> Scheme:
    """One adapter on one frozen network: banks `net` and `adapters` [1, ...], both for all agents.

    Every agent's kernel is W + (alpha / r) A B, with A [d, r] zero at the start and B [r, k].
    """
    scheme = adapted(ps(1), spec)  # one agent's, which the others use too
    banks = {name: bank._replace(index=(0,) * num_agents) for name, bank in scheme.banks.items()}
    return scheme._replace(banks=banks)


def _shared_lora(given):
    shared = ps(given.num_agents)
    return Sharing((shared, shared_lora(given.num_agents, given.spec)), (shared, shared))


register(
    "shared_lora", _shared_lora, keys=LoraKeys, cell="ps_lora",
    phases=(Phase("pretrain", "ps", until=1 / 3), Phase("finetune")),
)  # fmt: skip
