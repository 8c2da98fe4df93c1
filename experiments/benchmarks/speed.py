"""Where the time goes, against the machine's own limit.

    python -m experiments.speed env=ant_4x2 [any key of lorasa_jax.run] [out=outputs/speed]
    python -m experiments.speed physics=all     (engines of all robots, see engines.py)
    python -m experiments.speed schemes=all     (every scheme and algorithm, see schemes.py)
    python -m experiments.speed compiling=smax_3s5z     (compilation by parts, see compiling.py)

Prints its tables and writes them to out/speed_<env>.{md,json}: the C engine alone, the engine
inside compiled rollouts, one update of every sharing scheme, and the limit that physics and counted
floating-point operations at the machine's matrix-product rate would set. That rate is one of large
square matrices; the floor beside it takes an update's products as they are, narrow ones, and
nothing else. Compilation is apart; every figure is a median of several, measured in turns so that
ratios hold on busy machines.
"""

import platform
import resource
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from experiments import command, compiling, engines, measurement, schemes
from experiments.engines import REPEATS, engine_rows, medians
from lorasa_jax import config as configuration
from lorasa_jax import envs, keys
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import rollout
from lorasa_jax.policy.networks import parameters
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

BLOCKS = (2, 5, 10)  # parts of an epoch's samples, of which the fastest counts for the floor


def matrix_rate() -> float:
    """Floating-point operations per second of a compiled 2048 x 2048 matrix product."""
    size = 2048
    product = jax.jit(lambda a, b: a @ b)
    a = jnp.ones((size, size))
    return 2 * size**3 / medians({"": lambda: product(a, a).block_until_ready()})[""]


def operations_per_step(team, epochs: int) -> float:
    """Floating-point operations in matrix products per joint environment step, all agents.

    2 d k a sample forward and twice that backward for a d x k kernel, except for the first
    layer, whose inputs need no gradient; playing is one forward pass, an epoch is both.
    """
    total = 0.0
    for layer, d, k in kernels(team):
        backward = 2 if layer == "linear_1" else 4
        total += d * k * (2 + epochs * (2 + backward))
    return total * team.env.num_agents


def kernels(team) -> list[tuple[str, int, int]]:
    """(layer, inputs, outputs) of every matrix of the actor and the critic."""
    matrices = []
    for role in (team.actor, team.critic):
        net = jax.eval_shape(
            lambda key, role=role: parameters(role.network, key, role.features),
            jax.random.key(0),
        )
        matrices += [
            (layer, *values["kernel"].shape)
            for layer, values in net.items()
            if isinstance(values, dict) and "kernel" in values
        ]
    return matrices


# The products of one layer: w [inputs, outputs], x [rows, inputs], g [rows, outputs]. A barrier
# keeps products whole of which only one number is used.
def _forward(w, x, g):
    return jax.lax.optimization_barrier(x @ w)[0, 0]


def _first(w, x, g):
    """Forward and the kernel's gradient: inputs of the first layer need none."""
    parts = jax.lax.optimization_barrier((x @ w, x.T @ g))
    return sum(part[0, 0] for part in parts)


def _later(w, x, g):
    """Forward and both gradients."""
    parts = jax.lax.optimization_barrier((x @ w, x.T @ g, g @ w.T))
    return sum(part[0, 0] for part in parts)


def product_seconds(team, steps: int, num_envs: int) -> dict[str, float]:
    """Seconds of the matrix products of one `epoch`, and of `play`ing a window, nothing else.

    One network serves all agents. An epoch goes through its samples in the number of BLOCKS that
    is fastest; a product's forward, its inputs' gradient and its kernel's are those of
    `operations_per_step`. The recurrent product of a chunk is taken as one, which flatters it.
    """

    def repeated(rows, times, of):
        """The products of `of(layer)` on inputs of `rows`, for `times` different inputs."""
        data = [
            (jnp.ones((d, k)), jnp.ones((times, rows, d)), jnp.ones((times, rows, k)))
            for _, d, k in layers
        ]

        @jax.jit
        def run(data):
            def body(total, parts):
                for (layer, *_), (w, *_), (x, g) in zip(layers, data, parts, strict=True):
                    total += of(layer)(w, x, g)
                return total, None

            return jax.lax.scan(body, 0.0, [(x, g) for _, x, g in data])[0]

        return lambda: jax.block_until_ready(run(data))

    layers = kernels(team)
    samples = steps * num_envs * team.env.num_agents
    functions = {
        blocks: repeated(
            samples // blocks, blocks, lambda layer: _first if layer == "linear_1" else _later
        )
        for blocks in BLOCKS
    }
    functions["play"] = repeated(samples // steps, steps, lambda _: _forward)
    took = medians(functions)
    return {"epoch": min(took[blocks] for blocks in BLOCKS), "play": took["play"]}


def scheme_rows(base: list[str], name: str) -> dict[str, float]:
    """One scheme's finished phase: compile seconds, seconds per update, of which playing."""
    config = configuration.load([*base, f"sharing={name}"])
    teams = build_teams(config)
    progress = jax.jit(lambda: phases.begin(config, teams[0]))()
    for index in range(1, len(teams)):
        enter = jax.jit(lambda p, i=index: phases.switch(config, teams, i, p))
        progress = enter(progress)
    team, hp = teams[-1], config.algo_of(-1)
    began = time.perf_counter()
    phase = compile_phase(config, len(teams) - 1, team, progress)
    compiling = time.perf_counter() - began

    @jax.jit
    def collect(progress):
        state = jax.tree.map(lambda x: x[0], progress.state)
        return rollout.collect(state.key, team, state, hp)

    box = [progress]

    def update():
        box[0] = jax.block_until_ready(phase.advance(box[0], jnp.int32(1)))

    took = medians({"update": update, "play": lambda: jax.block_until_ready(collect(box[0]))})
    return {
        "compile": compiling,
        **took,
        "operations": operations_per_step(team, hp.epochs),
        "epochs": hp.epochs,
        "batch": config.batch,
    }


def measure(overrides: list[str]) -> dict:
    """The engine, every sharing scheme's update, and what would limit them."""
    config = configuration.load(overrides)
    name, num_envs = config.env["name"], config.algo.num_envs
    base = [item for item in overrides if not item.startswith("sharing=")]
    result = {
        "python": platform.python_version(),
        "matrix_gflops": matrix_rate() / 1e9,
        "engine": {
            str(n): engine_rows(name, "native", n, config.algo.rollout_length)
            for n in (num_envs, 64)
        },
        "schemes": {scheme: scheme_rows(base, scheme) for scheme in ("ps", "ps_lora", "nps")},
    }
    result["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    team = build_teams(config)[0]
    result["product_seconds"] = product_seconds(team, config.algo.rollout_length, num_envs)
    physics = 1 / result["engine"][str(num_envs)]["raw"]
    for row in result["schemes"].values():
        row |= shares(row, physics, result["matrix_gflops"] * 1e9, result["product_seconds"])
    return result


def shares(row: dict, physics: float, rate: float, products: dict) -> dict[str, float]:
    """A scheme's speed beside the limit and the floor.

    physics: the engine's seconds for one step; rate: floating-point operations a second.
    """
    steps_per_second = row["batch"] / row["update"]
    limit = 1 / (physics + row["operations"] / rate)
    narrow = row["epochs"] * products["epoch"] + products["play"]
    return {
        "steps_per_second": steps_per_second,
        "limit": limit,
        "share_of_limit": steps_per_second / limit,
        "share_of_floor": steps_per_second * (physics + narrow / row["batch"]),
        "learning_and_inference": row["update"] - physics * row["batch"],
    }


def tables(result: dict) -> list[Table]:
    engine = Table("environments", "C engine, steps/s", "inside jit, steps/s", "share")
    for n, row in result["engine"].items():
        engine.add_row(
            n, f"{row['raw']:,.0f}", f"{row['jitted']:,.0f}", f"{row['jitted'] / row['raw']:.0%}"
        )
    schemes = Table(
        "sharing", "compile s", "update s", "rollout s", "epochs + inference s",
        "steps/s", "limit", "share", "share of the floor",
    )  # fmt: skip
    for name, row in result["schemes"].items():
        schemes.add_row(
            name, f"{row['compile']:.1f}", f"{row['update']:.3f}", f"{row['play']:.3f}",
            f"{row['learning_and_inference']:.3f}", f"{row['steps_per_second']:,.0f}",
            f"{row['limit']:,.0f}", f"{row['share_of_limit']:.0%}", f"{row['share_of_floor']:.0%}",
        )  # fmt: skip
    return [engine, schemes]


def facts_of(result: dict) -> str:
    return (
        f"{result['device']}; large matrix products {result['matrix_gflops']:.0f} GFLOP/s; the "
        f"networks' own take {result['product_seconds']['epoch']:.3f} s an epoch and "
        f"{result['product_seconds']['play']:.3f} s a rollout; peak memory "
        f"{result['peak_memory_gib']:.2f} GiB; medians of {REPEATS}."
    )


def markdown(result: dict) -> str:
    lines = [f"`{result['command']}`", "", facts_of(result), ""]
    for table in tables(result):
        headers = [str(column.header) for column in table.columns]
        rows = zip(*(column.cells for column in table.columns), strict=True)
        lines += [*measurement.table(headers, rows), ""]
    return "\n".join(lines)


@dataclass(frozen=True)
class Options:
    """Where it is written; all other keys are those of the measured runs."""

    out: str = keys.key("outputs/speed", measurement.OUT)


USAGE = """python -m experiments.speed KEY=VALUE ...
python -m experiments.speed physics=all --help      engines of all robots
python -m experiments.speed schemes=all --help      every scheme and algorithm
python -m experiments.speed compiling=ENVIRONMENTS --help      compilation by parts"""
OTHERS = (("physics=", engines), ("schemes=", schemes), ("compiling=", compiling))


def main(arguments: list[str]) -> None:
    for key, other in OTHERS:
        if any(argument.startswith(key) for argument in arguments):
            other.main(arguments)
            return
    options, overrides = measurement.parse_known(Options, arguments, USAGE)
    name = configuration.load(overrides).env["name"]
    if name not in envs.mamujoco.NAMES:
        raise ConfigError(f"env={name} has no C engine to compare with; choose a MuJoCo robot.")
    out = measurement.folder(options.out)
    result = measurement.described("speed", arguments, "jax", "mujoco") | measure(overrides)
    paths = measurement.write(out, f"speed_{name}", result, markdown(result))
    console = Console()
    for table in tables(result):
        console.print(table)
    console.print(facts_of(result), highlight=False)
    print(*paths, sep="\n")


if __name__ == "__main__":
    command.run(main)
