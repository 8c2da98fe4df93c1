"""A random policy on both engines: do episode lengths and returns have one distribution?

    python -m experiments.random_policy [robots=hopper,walker2d,ant,humanoid] [episodes=2000]
        [horizon=200] [out=outputs/random_policy]

Torques are uniform; episodes end by themselves or after `horizon` steps. Single trajectories of
the engines part after a few steps, since contacts amplify the last bit; distributions must not.
A two-sample Kolmogorov-Smirnov test compares them, and the means differ by z standard errors. The
engines start from other seeds; the control is the C engine with MJX's seed, which shows what two
seeds of one engine differ by.
Writes out/random_policy.{json,md}; robots that are finished there are not played again.
"""

import json
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments import command, measurement
from experiments.engines import TASKS
from lorasa_jax import envs, keys
from lorasa_jax.learn.resets import choose

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
        length += (~done).astype(int)
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

    seeds = jax.random.split(jax.random.key(seed), -(-count // group))
    parts = [play(key) for key in seeds]
    lengths, returns = (
        np.concatenate([np.asarray(x) for x in part]) for part in zip(*parts, strict=True)
    )
    return lengths[:count], returns[:count]


ENGINES = ("native", "mjx")


def compare(robot: str, count: int, horizon: int) -> dict:
    """Both engines' statistics, and the tests between them; engines start from other seeds."""
    statistics, samples = {"episodes": count, "horizon": horizon}, {}
    for i, engine in enumerate(ENGINES):
        began = time.perf_counter()
        env = envs.make(TASKS[robot], engine=engine)
        samples[engine] = episodes(env, count, horizon, seed=i)
        row = {"seconds": time.perf_counter() - began}
        for name, values in zip(("length", "return"), samples[engine], strict=True):
            row[f"{name}_mean"], row[f"{name}_std"] = float(values.mean()), float(values.std())
        statistics[engine] = row
    return statistics | differences(*(samples[engine] for engine in ENGINES))


def differences(ones, others) -> dict[str, float]:
    """p and z of lengths and returns, two samples of each."""
    tests = {}
    for name, one, other in zip(("length", "return"), ones, others, strict=True):
        error = np.sqrt(one.var() / len(one) + other.var() / len(other))
        tests[f"{name}_p"] = float(stats.ks_2samp(one, other).pvalue)
        tests[f"{name}_z"] = float((one.mean() - other.mean()) / error) if error else 0.0
    return tests


def control(robot: str, count: int, horizon: int) -> dict[str, float]:
    """The same between the C engine and itself, with the seeds of both engines."""
    env = envs.make(TASKS[robot], engine="native")
    return differences(*(episodes(env, count, horizon, seed) for seed in range(len(ENGINES))))


HEADERS = (
    "robot", "episodes, horizon", "length native", "length MJX", "p, z", "control",
    "return native", "return MJX", "p, z", "control",
)  # fmt: skip


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, mujoco "
        f"{result['versions']['mujoco']}. Means (standard deviations); p: Kolmogorov-Smirnov; z: "
        "difference of means in standard errors; control: p and z of the C engine against itself, "
        "with MJX's seed.", "",
        *measurement.table(HEADERS, [cells(*item) for item in result["robots"].items()]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def cells(robot: str, row: dict) -> list[str]:
    """A robot's row of the table."""
    texts = [robot, f"{row['episodes']}, {row['horizon']}"]
    for name in ("length", "return"):
        for engine in ENGINES:
            mean, std = row[engine][f"{name}_mean"], row[engine][f"{name}_std"]
            texts.append(f"{mean:.2f} ({std:.2f})")
        texts += [
            f"{tests[f'{name}_p']:.3f}, {tests[f'{name}_z']:+.1f}"
            for tests in (row, row["control"])
        ]  # fmt: skip
    return texts


@dataclass(frozen=True)
class Options:
    """Which robots play for how long, and where it is written."""

    robots: str = keys.key(
        "hopper,walker2d,ant,humanoid", "robots", check=measurement.names_of(TASKS),
        accepts="names with commas: " + ", ".join(TASKS),
    )  # fmt: skip
    episodes: int = keys.key(2000, "episodes of each robot and engine", least=1)
    horizon: int = keys.key(200, "steps after which an episode ends", least=1)
    out: str = keys.key("outputs/random_policy", measurement.OUT)


def main(arguments: list[str]) -> None:
    options = measurement.parse(Options, arguments, "random_policy")
    out = measurement.folder(options.out)
    result = {"robots": {}} | measurement.stored(out, "random_policy")
    result |= measurement.described("random_policy", arguments, "jax", "mujoco")
    wanted = {"episodes": options.episodes, "horizon": options.horizon}
    for robot in measurement.names(options.robots):
        done = result["robots"].get(robot, {})
        if {key: done.get(key) for key in wanted} == wanted and "control" in done:
            print(f"{robot}: kept in {out}", flush=True)
            continue
        row = compare(robot, options.episodes, options.horizon)
        row["control"] = control(robot, options.episodes, options.horizon)
        result["robots"][robot] = row
        print(robot, json.dumps(row), flush=True)
        measurement.write(out, "random_policy", result, markdown(result))


if __name__ == "__main__":
    command.run(main)
