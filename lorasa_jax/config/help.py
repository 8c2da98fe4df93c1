"""What `--help` and the documentation say of a training's keys, made from the keys themselves.

python -m lorasa_jax.config.help > docs/keys.md
"""

from collections.abc import Iterator

from lorasa_jax import envs, keys
from lorasa_jax.config.run_keys import LOGGERS, RunKeys
from lorasa_jax.config.schema import GROUPS, PRETRAIN, Network, Pretrain
from lorasa_jax.registry import Row

USAGE = """python -m lorasa_jax.run KEY=VALUE ...

Trains what the keys say, or goes on with it. Whatever is not given comes from the paper's tables
for (env, algo, sharing), or from `preset`. `--cfg job` shows the result and trains nothing;
`--multirun` with values that are several runs a batch.
"""
_FAMILIES = {
    "multi-agent MuJoCo": "ant_4x2", "SMAX": "smax_3m", "the SMAC suite": "smac_3s5z",
    "JaxMARL's others": "jaxmarl_overcooked",
}  # fmt: skip


def sections() -> Iterator[tuple[str, list[keys.Description]]]:
    """(title, keys) of every part of a configuration; what rows have in common comes once."""
    yield "The run", [*_choices(), *keys.described(RunKeys)]
    yield "Networks", keys.described(Network, "network.")
    yield "Every algorithm", keys.described(GROUPS["algo"].row("mappo").keys, "algo.")
    seen = set(GROUPS["algo"].row("mappo").defaults)
    for row in GROUPS["algo"].rows():
        yield from _row("algo", row, seen if row.name != "happo" else set())
    yield (
        "The first of several phases",
        [
            description._replace(default="algo's where given, else the tables'")
            for description in keys.described(Pretrain, "pretrain.")
            if description.name.removeprefix("pretrain.") in PRETRAIN
        ],
    )
    for row in GROUPS["sharing"].rows():
        yield from _row("sharing", row, set())
    yield "Every environment", keys.described(envs.Keys, "env.")
    for title, name in _FAMILIES.items():
        yield f"env: {title}", keys.described(envs.REGISTRY.row(name).keys, "env.")
    for name, kind in LOGGERS.items():
        if keys.keys(kind):
            yield f"logger={name}", keys.described(kind, "logger.")


def _choices():
    for group, registry in GROUPS.items():
        names = registry.names()
        shown = ", ".join(names) if len(names) < 30 else f"one of {len(names)}, see the docs"
        yield keys.Description(group, _default(group), shown, f"the {registry.called}")
    yield keys.Description("logger", _default("logger"), ", ".join(LOGGERS), "where metrics go")


def _default(group):
    from lorasa_jax.config.overrides import DEFAULTS

    return DEFAULTS[group]


def _row(group: str, row: Row, seen) -> Iterator[tuple[str, list[keys.Description]]]:
    described = keys.described(row.keys, f"{group}.")
    descriptions = [x for x in described if x.name.split(".")[1] not in seen]
    if descriptions:
        yield f"{group}={row.name}", descriptions


def text() -> str:
    """The help of `python -m lorasa_jax.run`."""
    return USAGE + "".join(f"\n{title}\n{keys.help_lines(rows)}" for title, rows in sections())


def markdown() -> str:
    """The documentation's page of keys."""
    head = (
        "# Keys\n\nEvery key of `python -m lorasa_jax.run`, with its default and what it accepts. "
        "This page is made from the code by `python -m lorasa_jax.config.help > docs/keys.md`.\n"
    )
    return head + "".join(f"\n## {title}\n\n{keys.table(rows)}" for title, rows in sections())


if __name__ == "__main__":
    print(markdown(), end="")
