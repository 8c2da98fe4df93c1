"""Runs of more than two phases: backbone and adapters train in turns, adapters are merged.

A way of sharing of two phases, of which the second adds something to the first's networks, gives
two words: the first phase's own way of sharing (`ps` for ps_lora), and its name. `ps` trains the
networks, and once there are adapters these stay in every agent's weights, frozen; `ps_lora` trains
the adapters on frozen networks. `merge` between two phases takes every agent's whole weights W +
s A B for networks, as ReLoRA does (Lialin et al. 2023, arXiv 2307.05695), on which adapters begin
anew: nobody acts otherwise for it.

Agents whose adapters were the same still share a network after it, as under shared_lora; agents
with adapters of their own have a network each from then on, which may be frozen and adapted again
but not trained as `ps`, for that would no longer share it.
"""

from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lorasa_jax.errors import ConfigError
from lorasa_jax.registry import Row
from lorasa_jax.sharing.full import grouped
from lorasa_jax.sharing.scheme import Scheme
from lorasa_jax.values import listed, whole_number

MERGE = "merge"


class Entry(NamedTuple):
    """A phase of a list: its word, its steps (None: to the end), whether adapters are merged first.

    kind: the number of the row's phase that it is like.
    """

    word: str
    steps: int | None
    merged: bool
    kind: int


def texts(value: Any, label: str) -> tuple[str, ...]:
    """The key's value, a list such as [ps:2e6, ps_lora]: its texts with whole numbers of steps.

    Raises:
      ConfigError: it is no list of texts, or a number of steps is none.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
        raise ConfigError(f"{label}={value} must be a list of phases, such as [ps:2e6,ps_lora].")
    parts = [text.partition(":") for text in value]
    return tuple(
        f"{word.strip()}:{whole_number(steps, f'{label}: {word.strip()}')}"
        if colon
        else word.strip()
        for word, colon, steps in parts
    )


def entries(phases: tuple[str, ...], row: Row) -> tuple[Entry, ...]:
    """A list's phases in their order, for the row of its way of sharing.

    Raises:
      ConfigError: the way of sharing has no backbone to alternate with, a word is not known, or it
        does not fit where it stands.
    """
    shown = f"phases=[{','.join(phases)}]"
    if len(row.phases) != 2 or row.phases[0].scheme is None:
        raise ConfigError(
            f"{shown} needs a way of sharing that trains networks first and adapters then, which "
            f"sharing={row.name} does not; choose one such as ps_lora, or drop phases."
        )
    first, second = words = (row.phases[0].scheme, row.name)
    found: list[Entry] = []
    merges, adapted = False, False
    for text in phases:
        word, _, steps = text.partition(":")
        if word == MERGE:
            if steps or merges or not adapted:
                raise ConfigError(
                    f"{shown}: merge stands without steps after a phase of {second}, of which "
                    "there must be one since the last merge."
                )
            merges, adapted = True, False
            continue
        if word not in words:
            raise ConfigError(f"{shown}: {word} is not known; choose from {listed(words)}, merge.")
        if found and not merges and found[-1].word == word:
            raise ConfigError(f"{shown}: {word} follows itself; give one phase the steps of both.")
        found.append(Entry(word, int(steps) if steps else None, merges, words.index(word)))
        merges, adapted = False, adapted or word == second
    if merges or len(found) < 2 or found[0].word != first:
        raise ConfigError(f"{shown} must begin with {first} and end with another phase.")
    return tuple(found)


def names(found: tuple[Entry, ...], row: Row) -> tuple[str, ...]:
    """Every phase's name: the row's, with a number from its second time on."""
    seen: Counter = Counter()
    result = []
    for entry in found:
        seen[entry.kind] += 1
        number = f" {seen[entry.kind]}" if seen[entry.kind] > 1 else ""
        result.append(row.phases[entry.kind].name + number)
    return tuple(result)


def schemes(found: tuple[Entry, ...], base: Scheme, adapted: Scheme) -> tuple[Scheme, ...]:
    """A scheme for every phase, from those of the row's two.

    Raises:
      ConfigError: the second freezes no networks, or a phase would train as shared networks what a
        merge has made agents' own.
    """
    if not adapted.adapts:
        raise ConfigError(
            "phases needs a way of sharing whose second phase adds to networks that it freezes, "
            "such as ps_lora; choose one, or drop phases."
        )
    made = [base]
    for entry in found[1:]:
        made.append(_following(entry, made[-1], base, adapted))
    return tuple(made)


def adapting(scheme: Scheme) -> bool:
    """Whether a scheme adds adapters to whole networks, whichever of the two it trains."""
    return scheme.adapts or {"net", "adapters"} <= set(scheme.banks)


def _following(entry: Entry, before: Scheme, base: Scheme, adapted: Scheme) -> Scheme:
    """The scheme of a phase after one of the scheme `before`."""
    if entry.merged:
        return _after_merge(entry, before, base, adapted)
    if set(before.banks) != set(adapted.banks):  # no adapters yet
        return _on(before.banks["net"].index, base, adapted)
    trains = {name: name == "net" for name in adapted.banks}  # the first phase's
    if entry.kind == 1:
        trains = {name: bank.trained for name, bank in adapted.banks.items()}
    banks = {name: bank._replace(trained=trains[name]) for name, bank in before.banks.items()}
    rests = trains["net"]  # then what was added is as it is served, and nothing changes its ranks
    return before._replace(
        banks=banks,
        adopt=lambda key, old: dict(before.served(old)) if rests else dict(old),
        penalty=None if rests else adapted.penalty,
        after_update=None if rests else adapted.after_update,
    )


def _after_merge(entry: Entry, before: Scheme, base: Scheme, adapted: Scheme) -> Scheme:
    groups = alike(before)
    if entry.kind == 1:
        new = _on(groups, base, adapted)
    elif groups == base.banks["net"].index:
        new = base
    else:
        raise ConfigError(
            f"phases: merge gives agents networks of their own, which {entry.word} cannot train as "
            "shared ones; adapt them again, or merge one adapter for all (sharing=shared_lora)."
        )
    adopt = new.adopt
    return new._replace(adopt=lambda key, old: adopt(key, {"net": merged(before, old)}))


def _on(groups: tuple[int, ...], base: Scheme, adapted: Scheme) -> Scheme:
    """The adapted scheme on networks of which agents use those of `groups`."""
    old = base.banks["net"].index
    if groups == old:
        return adapted
    # What agents of one network have in common follows the networks.
    banks = {
        name: bank._replace(index=groups) if bank.index == old and not bank.memory else bank
        for name, bank in adapted.banks.items()
    }
    networks = grouped(groups)

    def init(key, fresh):
        net_key, adapter_key = jax.random.split(key)
        return adapted.adopt(adapter_key, networks.init(net_key, fresh))

    return adapted._replace(banks=banks, init=init)


def alike(scheme: Scheme) -> tuple[int, ...]:
    """The group of every agent [agent]: agents of one group use the same entry of every bank."""
    uses = list(zip(*(bank.index for bank in scheme.banks.values()), strict=True))
    first = {use: number for number, use in enumerate(dict.fromkeys(uses))}
    return tuple(first[use] for use in uses)


def merged(scheme: Scheme, banks: dict[str, Any]) -> Any:
    """The whole weights of every group of agents that are alike, [group, ...] on every leaf."""
    tree, axes = scheme.weights(scheme.served(banks))
    groups = alike(scheme)
    members = np.array([groups.index(group) for group in range(max(groups) + 1)])

    def leaf(axis, x):
        return x[members] if axis == 0 else jnp.broadcast_to(x, (len(members), *x.shape))

    return jax.tree.map(leaf, axes, tree, is_leaf=lambda axis: axis is None)
