"""Numbers are what was typed: every key of every program, with values that it should not take."""

import dataclasses
import math
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lorasa_jax import config as configuration
from lorasa_jax import envs, evaluate, keys
from lorasa_jax.config import overrides
from lorasa_jax.config.run_keys import LOGGERS, RunKeys
from lorasa_jax.config.schema import GROUPS, Network, Pretrain, place
from lorasa_jax.errors import ConfigError
from lorasa_jax.export import command as export
from lorasa_jax.report import command as report

pytestmark = pytest.mark.faults

VALUES = (
    "abc", "0", "-1", "-0.5", "2.5", "1e30", "1e-50", "1e39", "inf", "-inf", "nan", "true", "[]",
    "[1,2]", "[-1]", "[a,b]", "{a: 1}", "9007199254740993", "4294967296", "1_0", "2025_01_15",
    "1e400", "0x10", "''", "'1'", "null", "", "größe",
)  # fmt: skip
# A key of every part of a configuration is tried where that part is chosen.
PARTS = [("", RunKeys, []), ("network.", Network, []), ("pretrain.", Pretrain, [])]
PARTS += [("env.", envs.Keys, [])]
PARTS += [
    ("env.", envs.REGISTRY.row(name).keys, [f"env={name}"])
    for name in ("ant_4x2", "smax_3m", "smac_3s5z", "jaxmarl_overcooked")
]
PARTS += [("algo.", row.keys, [f"algo={row.name}"]) for row in GROUPS["algo"].rows()]
PARTS += [("sharing.", row.keys, [f"sharing={row.name}"]) for row in GROUPS["sharing"].rows()]
PARTS += [("logger.", LOGGERS["wandb"], ["logger=wandb"])]
KEYS = list({
    prefix + name: (kind, name, chosen)
    for prefix, kind, chosen in PARTS for name in keys.keys(kind)
}.items())  # fmt: skip


def held(value, typed, is_text):
    """Whether a configuration's value is what was typed."""
    if is_text:
        unquoted = typed[1:-1] if typed[:1] == "'" else typed
        return value == (None if typed == "null" else unquoted)
    wanted = OverridesParser.create().parse_override(f"x={typed}").value()
    if isinstance(value, str) and not isinstance(wanted, str | bool):
        return False
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted or (value, wanted) == ("linear", True)
    if isinstance(value, int | float):
        try:
            # A whole number digit by digit; others are rounded to the nearest, as everywhere.
            exact = Decimal(typed.strip("'")) == value if isinstance(value, int) else True
        except InvalidOperation:
            return False
        return exact and math.isfinite(value) and float(typed.strip("'")) == value
    return keys.plain(value) == keys.plain(wanted)


def refused_or_held(words, name, typed, is_text):
    """None, or what is wrong with how `name=typed` is taken."""
    try:
        config = configuration.load([*words, f"{name}={typed}"])
    except ConfigError as refusal:
        message = str(refusal)
        sentence = "\n" not in message and message[-1] in ".?" and len(message) < 1500
        return None if sentence else f"no sentence: {message!r}"
    section, last = place(config.to_dict(), name)
    value = section[last] if section is not None else None
    if typed == "null" or held(value, typed, is_text):
        return None
    return f"{value!r}"


def complaints(cases):
    wrong = []
    for name, (kind, last, chosen), typed in cases:
        problem = refused_or_held(chosen, name, typed, keys.is_text(kind, last))
        wrong += [f"{name}={typed}: {problem}"] if problem else []
    return wrong


ALL = [(name, row, typed) for name, row in KEYS for typed in VALUES]


def test_a_sample_of_bad_values_is_refused_or_held_exactly():
    assert complaints(ALL[::97]) == []


@pytest.mark.long
@pytest.mark.full
@pytest.mark.parametrize("part", range(5))
def test_six_hundred_bad_values_are_refused_or_held_exactly(part):
    assert len(ALL) > 3000
    assert complaints(ALL[part::24]) == []


@pytest.mark.long
@pytest.mark.parametrize("part", range(5, 24))
def test_all_other_bad_values_of_every_key_are_refused_or_held_exactly(part):
    assert complaints(ALL[part::24]) == []


@pytest.mark.full
def test_unknown_neighbours_of_every_key_are_refused():
    for name, (_, _, chosen) in KEYS[::4]:
        for word in (f"{name}x=2", f"+{name}x=2", f"++{name}x=2", f"{name}.x=2", f"+{name}.x=2"):
            with pytest.raises(ConfigError) as refusal:
                configuration.load([*chosen, word])
            assert "\n" not in str(refusal.value), word


NAMED = {
    "seed=4294967296": "at most 4294967295",
    "seed=9007199254740993": "seed=9007199254740993 must be at most",
    "num_seeds=1e9 seed=4294967295": "seeds must be at most",
    "algo.clip=2": "below 1",
    "algo.actor_lr=1e39": "single precision",
    "algo.actor_lr=1e-50": "single precision",
    "sharing.rank=1e30": "whole number",
    "switch_margin=-1": "at least 0",
    "keep_at=0": "list of steps",
    "keep_at=[0]": "at least 1",
    "switch_patience=7": "needs switch_when=improving or plateau",
    "switch_margin=0.1": "needs switch_when=plateau",
    "+sharing.foo=2": "unknown key sharing.foo",
    "+network.foo=2": "unknown key network.foo",
    "+pretrain.foo=2": "unknown key pretrain.foo",
    "network=3": "is no section",
    "env.name=3": "must be a name",
    "~env": "~env is not of the form key=value",
    "seed=${nothing}": "interpolation",
    "out=~/x": "begins with ~",
    "out='~/x'": "begins with ~",
    "total_steps=1e18": "whole number",
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("words", NAMED)
def test_what_was_once_accepted_is_refused(words):
    with pytest.raises(ConfigError) as refusal:
        configuration.load(words.split(" "))
    assert NAMED[words] in str(refusal.value)


PATHS = (
    "2025_01_15", "1e-3", "runs/größe", "a b", "x[1]=(2)", "007", "true", "it's", "a,b", "a\\"
)  # fmt: skip


@pytest.mark.parametrize("out", PATHS)
@pytest.mark.sample(10)
def test_paths_are_the_text_that_was_typed(out):
    assert configuration.load([f"out={out}"]).out == out
    assert configuration.load([f"out={overrides.quoted(out)}"]).out == out
    project = f"logger.project={out}"
    if not set(out) & set("/\\"):
        assert configuration.load(["logger=wandb", project]).logger["project"] == out


@pytest.mark.parametrize("module", [evaluate, export, report])
@pytest.mark.sample(3)
def test_other_programs_take_what_was_typed_or_refuse_it(module, tmp_path):
    need = [str(tmp_path)] if module is report else [f"out={tmp_path}"]
    tried = 0
    for name in keys.keys(module.Options):
        for typed in VALUES:
            words = [f"{name}={typed}", *(need if name != "out" or module is report else [])]
            tried += 1
            try:
                value = getattr(module.parse(words), name)
            except ConfigError as refusal:
                assert "\n" not in str(refusal) and str(refusal)[-1] in ".?", words
                continue
            is_text = keys.is_text(module.Options, name)
            if is_text:
                assert value in (typed, None if typed == "null" else typed), words
            elif typed != "null":
                assert held(value, typed, False), (words, value)
        with pytest.raises(ConfigError):
            module.parse([f"{name}x=2", *need])
    assert tried >= 4 * len(VALUES)


def test_a_seed_of_32_bits_is_the_seed_that_plays():
    import jax

    last = jax.random.key(evaluate.parse(["out=x", "seed=4294967295"]).seed)
    assert int(jax.random.key_data(last)[-1]) == 2**32 - 1
    assert dataclasses.replace(configuration.load(["seed=4294967295"])).seeds == (2**32 - 1,)
    assert Path(configuration.load(["out=1e-3"]).out) == Path("1e-3")
