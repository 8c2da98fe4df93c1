"""A random policy on both engines: do episode lengths and returns have one distribution?

    python -m experiments.random_policy [robots=hopper,walker2d,ant,humanoid] [episodes=2000]
        [horizon=200]

Torques are uniform; episodes end by themselves or after `horizon` steps. Single trajectories of
the engines part after a few steps, since contacts amplify the last bit; distributions must not.
A two-sample Kolmogorov-Smirnov test compares them, and the means differ by z standard errors. The
engines start from other seeds; the control is the C engine with MJX's seed, which shows what two
seeds of one engine differ by.
Finished robots are kept in experiments/results/random_policy.json and not played again.
"""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from scipy import stats

from experiments.engines import TASKS
from lorasa_jax import envs, machine
from lorasa_jax.errors import ConfigError
from lorasa_jax.files import write_atomically
from lorasa_jax.learn.resets import choose
from lorasa_jax.values import whole

RESULTS = Path(__file__).parent / "results"
SIDE_BY_SIDE = 250


def episodes(env, count: int, horizon: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and returns [count] of random play, in groups that run side by side."""
    group = min(count, SIDE_BY_SIDE)

    def step(loop):
        key, state, length, total, done, t = loop
        key, act_key = jax.random.split(key)
        shape = (group, env.num_agents, env.action_space.size)
        actions = jax.random.uniform(act_key, shape, minval=-1.0)
        after, timestep = jax.vmap(env.step, in_axes=(None, 0, 0))(key, state, actions)
        total += jnp.where(done, 0.0, timestep.reward)
        length += ~done
        state = choose(done, state, after)
        return key, state, length, total, done | timestep.terminated, t + 1

    @jax.jit
    def play(key):
        key, reset_key = jax.random.split(key)
        state, _ = jax.vmap(env.reset)(jax.random.split(reset_key, group))
        zero = jnp.zeros(group)
        loop = (key, state, zero.astype(int), zero, zero.astype(bool), jnp.zeros((), int))
        loop = jax.lax.while_loop(lambda x: ~x[4].all() & (x[5] < horizon), step, loop)
        return loop[2], loop[3]

    keys = jax.random.split(jax.random.key(seed), -(-count // group))
    parts = [play(key) for key in keys]
    lengths, returns = (
        np.concatenate([np.asarray(x) for x in part]) for part in zip(*parts, strict=True)
    )
    return lengths[:count], returns[:count]


ENGINES = ("native", "mjx")


def compare(robot: str, count: int, horizon: int) -> dict:
    """Both engines' statistics, and the tests between them; engines start from other seeds."""
    found, samples = {"episodes": count, "horizon": horizon}, {}
    for i, engine in enumerate(ENGINES):
        began = time.perf_counter()
        env = envs.make(TASKS[robot], engine=engine)
        samples[engine] = episodes(env, count, horizon, seed=i)
        row = {"seconds": time.perf_counter() - began}
        for name, values in zip(("length", "return"), samples[engine], strict=True):
            row[f"{name}_mean"], row[f"{name}_std"] = float(values.mean()), float(values.std())
        found[engine] = row
    return found | differences(*(samples[engine] for engine in ENGINES))


def differences(ones, others) -> dict[str, float]:
    """p and z of lengths and returns, two samples of each."""
    found = {}
    for name, one, other in zip(("length", "return"), ones, others, strict=True):
        error = np.sqrt(one.var() / len(one) + other.var() / len(other))
        found[f"{name}_p"] = float(stats.ks_2samp(one, other).pvalue)
        found[f"{name}_z"] = float((one.mean() - other.mean()) / error) if error else 0.0
    return found


def control(robot: str, count: int, horizon: int) -> dict[str, float]:
    """The same between the C engine and itself, with the seeds of both engines."""
    env = envs.make(TASKS[robot], engine="native")
    return differences(*(episodes(env, count, horizon, seed) for seed in range(len(ENGINES))))


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, mujoco "
        f"{result['versions']['mujoco']}. Means (standard deviations); p: Kolmogorov-Smirnov; z: "
        "difference of means in standard errors; control: p and z of the C engine against itself, "
        "with MJX's seed.", "",
        "| robot | episodes, horizon | length native | length MJX | p, z | control | return native "
        "| return MJX | p, z | control |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for robot, row in result["robots"].items():
        cells = [robot, f"{row['episodes']}, {row['horizon']}"]
        for name in ("length", "return"):
            for engine in ("native", "mjx"):
                mean, std = row[engine][f"{name}_mean"], row[engine][f"{name}_std"]
                cells.append(f"{mean:.2f} ({std:.2f})")
            cells += [
                f"{found[f'{name}_p']:.3f}, {found[f'{name}_z']:+.1f}"
                for found in (row, row["control"])
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    chosen = {"robots": "hopper,walker2d,ant,humanoid", "episodes": "2000", "horizon": "200"}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in chosen:
            raise ConfigError(f"{key} is not a key here; use {', '.join(chosen)}.")
        chosen[key] = value
    path = RESULTS / "random_policy.json"
    result = json.loads(path.read_text()) if path.exists() else {"robots": {}}
    result |= {
        "command": " ".join(["python -m experiments.random_policy", *arguments]),
        "device": machine.name(),
        "versions": {"jax": jax.__version__, "mujoco": mujoco.__version__},
    }
    wanted = {key: whole(chosen[key], key) for key in ("episodes", "horizon")}
    for robot in chosen["robots"].split(","):
        if robot not in TASKS:
            raise ConfigError(f"robots={robot} is not known; choose from {', '.join(TASKS)}.")
        done = result["robots"].get(robot, {})
        if {key: done.get(key) for key in wanted} == wanted and "control" in done:
            continue
        row = compare(robot, wanted["episodes"], wanted["horizon"])
        row["control"] = control(robot, wanted["episodes"], wanted["horizon"])
        result["robots"][robot] = row
        print(robot, json.dumps(result["robots"][robot]), flush=True)
        write_atomically(path, json.dumps(result, indent=2) + "\n")
        write_atomically(path.with_suffix(".md"), markdown(result))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigError as error:
        print(f"experiments.random_policy: {error}", file=sys.stderr)
        sys.exit(2)
