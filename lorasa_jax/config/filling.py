"""Numbers that are not given: from the preset, and from the cell of the paper's tables."""

from typing import Any

from lorasa_jax import keys
from lorasa_jax.config import paper, presets
from lorasa_jax.config.run_keys import RunKeys
from lorasa_jax.config.schema import PRETRAIN, Pretrain, place
from lorasa_jax.errors import ConfigError
from lorasa_jax.registry import Row


def take_preset(
    tree: dict[str, Any],
    cell: dict[str, Any],
    env: str,
    algo: str,
    given: frozenset[str],
    notes: list[str],
) -> None:
    """Sets the preset's keys in `tree`, except those that are given, and says so in `notes`.

    Those that follow a run's length are set in `cell`: the whole run's, from which null is filled.
    """
    preset = keys.value_of(RunKeys, "preset", tree.setdefault("preset", "paper"), "preset")
    numbers = presets.numbers(preset, env, algo)
    shares = ("total_steps", "switch_at")  # as the paper's do
    cell.update({name: numbers[name] for name in shares if name in numbers})
    for name, value in numbers.items():
        section, last = place(tree, name)
        if name not in given and name not in shares:
            section[last] = value
    for source in dict.fromkeys(row.source for row in presets.rows(preset, env, algo)):
        notes.append(f"preset={preset}: {source}")


def first_phase(
    tree: dict[str, Any], sharing_row: Row, algo: dict[str, Any], algo_cell: str
) -> Any:
    """The first phase's numbers: its own keys, else the algorithm's if set, else the paper's."""
    pretrain = tree.get("pretrain") or {}
    if len(sharing_row.phases) == 1:
        for name, value in pretrain.items():
            if value is not None:
                raise ConfigError(
                    f"pretrain.{name}={value} needs a second phase, which "
                    f"sharing={sharing_row.name} does not have; drop it or choose ps_lora."
                )
        return None
    algo_section = tree["algo"]
    sharing_cell = sharing_row.phases[0].scheme or sharing_row.cell
    cell = paper.cell(tree["env"]["name"], algo_cell, sharing_cell)
    values = dict(pretrain)
    for name in PRETRAIN:
        if values.get(name) is None:
            values[name] = cell[name] if algo_section.get(name) is None else algo[name]
    return keys.convert(Pretrain, values, "pretrain.")


def filled(section: dict[str, Any], kind: type, cell: dict[str, Any]) -> dict[str, Any]:
    """A section whose null keys have the cell's numbers."""
    fields = keys.keys(kind)

    def from_cell(name):
        return name in cell and name in fields and fields[name].metadata["key"].cell

    missing = {name: None for name in fields if from_cell(name) and name not in section}
    return {
        name: cell[name] if value is None and from_cell(name) else value
        for name, value in {**section, **missing}.items()
    }
