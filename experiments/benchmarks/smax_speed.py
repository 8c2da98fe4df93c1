"""How fast the maps are beside JaxMARL's own: environments, and training end to end.

    python -m experiments.smax_speed [maps=3s5z,3s5z_vs_3s6z] [script=.../MAPPO/mappo_rnn_smax.py]
        [out=outputs/smax_speed]

Environments: 128 of them play random legal actions without resets: upstream's HeuristicEnemySMAX,
`smax_<map>` (its rules) and `smac_<map>` (the suite's). Training, where `script` names that file in
a checkout of JaxMARL's repository: smax_3s5z at the settings that come with it (128 environments x
128 steps, width 128, 4 epochs, 4 minibatches, whole windows through the recurrent layer). Ours
takes them with the script's network (one linear layer before the recurrent one, no LayerNorms),
alone and with the environments split over two devices, and with the paper's network, in whole
windows and in chunks of 16 steps. All are measured in turns in one process: on a busy machine only
ratios mean much.
Writes out/smax_speed.{json,md}.
"""

import contextlib
import importlib.util
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command, measurement
from lorasa_jax import config as configuration
from lorasa_jax import envs, keys
from lorasa_jax.envs.smac.maps import MAPS
from lorasa_jax.envs.stacked import upstream
from lorasa_jax.errors import ConfigError
from lorasa_jax.learn import devices
from lorasa_jax.training import phases
from lorasa_jax.training.program import compile_phase
from lorasa_jax.training.teams import build_teams

NUM_ENVS, TIMED_STEPS, REPEATS = 128, 50, 9
UPDATES, TRAININGS = 2, 3
THEIR_NETWORK = ["network.depth=1", "network.layer_norm=false", "algo.chunk_length=128"]
OURS = {
    "the script's network, environments split over two devices": [*THEIR_NETWORK, "devices=2"],
    "the script's network": THEIR_NETWORK,
    "the paper's network": ["algo.chunk_length=128"],
    "the paper's network, chunks of 16": ["algo.chunk_length=16"],
}
TRAINING = [
    "env=smax_3s5z", "env.max_steps=100", "sharing=ps", "algo.num_envs=128",
    "algo.rollout_length=128", "algo.epochs=4", "algo.minibatches=4",
    "network.hidden=128", "algo.clip=0.2", "algo.entropy_coef=0", "algo.actor_lr=2e-3",
    "algo.critic_lr=2e-3", "algo.max_grad_norm=0.25", "algo.gae_lambda=0.95",
    "total_steps=1638400",
]  # fmt: skip


def random_actions(key, legal):
    """One of the legal actions [..., agent, action], each as likely as another."""
    scores = jax.random.uniform(key, legal.shape)
    return jnp.argmax(jnp.where(legal, scores, -1.0), axis=-1)


def our_rollout(name: str):
    """A compiled rollout of TIMED_STEPS of NUM_ENVS environments, and its first argument."""
    env = envs.make(name, agent_ids=False)

    def step(carry, key):
        state, timestep = carry
        key, act_key = jax.random.split(key)
        actions = random_actions(act_key, timestep.legal)
        step_keys = jax.random.split(key, NUM_ENVS)
        carry = jax.vmap(env.step)(step_keys, state, actions)
        return carry, carry[1].reward.sum()

    start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), NUM_ENVS))
    return _compiled(step), start


def upstream_rollout(name: str):
    """The same of upstream's map."""
    smax = upstream("jaxmarl.environments.smax")
    env = smax.HeuristicEnemySMAX(scenario=smax.map_name_to_scenario(name))

    def step(carry, key):
        state, _ = carry
        key, act_key = jax.random.split(key)
        legal = jax.vmap(env.get_avail_actions)(state)
        stacked = jnp.stack([legal[agent] for agent in env.agents], axis=1) > 0
        actions = random_actions(act_key, stacked)
        actions = {agent: actions[:, i] for i, agent in enumerate(env.agents)}
        step_keys = jax.random.split(key, NUM_ENVS)
        obs, state, rewards, _, _ = jax.vmap(env.step_env)(step_keys, state, actions)
        return (state, obs), rewards["ally_0"].sum()

    obs, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), NUM_ENVS))
    return _compiled(step), (state, obs)


def _compiled(step):
    @jax.jit
    def run(carry, key):
        return jax.lax.scan(step, carry, jax.random.split(key, TIMED_STEPS))

    return run


def environments(name: str) -> dict:
    """Joint steps per second of a map, medians of runs in turns, and ratios to upstream."""
    rollouts = {
        "upstream": upstream_rollout(name),
        "smax": our_rollout(f"smax_{name}"),
        "smac": our_rollout(f"smac_{name}"),
    }
    functions = {
        kind: lambda run=run, start=start: run(start, jax.random.key(1))
        for kind, (run, start) in rollouts.items()
    }
    return in_turns(functions, NUM_ENVS * TIMED_STEPS, REPEATS)


def in_turns(functions: dict, steps: int, repeats: int) -> dict:
    """Steps per second by the median, and the median over turns of each one's ratio to upstream."""
    took: dict = {kind: [] for kind in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for kind, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            took[kind].append(time.perf_counter() - began)
    rates = {kind: steps / statistics.median(times) for kind, times in took.items()}
    ratios = {
        f"{kind} ratio": float(np.median(np.array(took["upstream"]) / np.array(times)))
        for kind, times in took.items()
        if kind != "upstream"
    }
    return rates | ratios | {"load": os.getloadavg()[0]}


def training(script: Path) -> dict:
    """Joint steps per second of whole updates: JaxMARL's script and ours."""
    spec = importlib.util.spec_from_file_location("jaxmarl_mappo", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.wandb.log = lambda *_: None
    settings = script.parent / "config" / "mappo_homogenous_rnn_smax.yaml"
    from omegaconf import OmegaConf

    theirs = OmegaConf.to_container(OmegaConf.load(settings))
    steps = UPDATES * theirs["NUM_ENVS"] * theirs["NUM_STEPS"]
    theirs |= {"MAP_NAME": "3s5z", "TOTAL_TIMESTEPS": steps}
    train = jax.jit(module.make_train(theirs))
    ours = {
        name: our_training(overrides)
        for name, overrides in OURS.items()
        if "devices=2" not in overrides or jax.device_count() > 1
    }
    functions = {"upstream": lambda: train(jax.random.PRNGKey(0))} | ours
    return in_turns(functions, steps, TRAININGS)


def our_training(overrides: list[str]):
    """A function that goes on for UPDATES updates."""
    config = configuration.load([*TRAINING, *overrides])
    team = build_teams(config)[0]
    box = [jax.jit(lambda: phases.begin(config, team))()]
    phase = compile_phase(config, 0, team, box[0])

    def train():
        box[0] = phase.advance(box[0], jnp.int32(UPDATES))
        return box[0]

    return train


HEADERS = ("", "JaxMARL", "`smax_`", "ratio", "`smac_`", "ratio", "load average")


def markdown(result: dict) -> str:
    lines = [
        f"`{result['command']}`", "",
        f"{result['device']}; jax {result['versions']['jax']}, jaxmarl "
        f"{result['versions']['jaxmarl']}. Joint steps per second, medians in turns.", "",
        *measurement.table(HEADERS, cells(result)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def cells(result: dict) -> list[list[str]]:
    """The table's rows: random play on each map, then training with each of OURS."""
    rows = [
        [
            f"{name}, random play", f"{row['upstream']:,.0f}", f"{row['smax']:,.0f}",
            f"{row['smax ratio']:.2f}", f"{row['smac']:,.0f}", f"{row['smac ratio']:.2f}",
            f"{row['load']:.1f}",
        ]
        for name, row in result["environments"].items()
    ]  # fmt: skip
    row = result.get("training", {})
    return rows + [
        [
            f"3s5z, MAPPO end to end, {name}", f"{row['upstream']:,.0f}", f"{row[name]:,.0f}",
            f"{row[f'{name} ratio']:.2f}", "-", "-", f"{row['load']:.1f}",
        ]
        for name in OURS
        if name in row
    ]  # fmt: skip


def _script(text, key):
    if text and not Path(text).is_file():
        raise ConfigError(f"{key}={text} is no file; give JaxMARL's baselines/MAPPO script.")
    return text


@dataclass(frozen=True)
class Options:
    """What is measured, and where it is written."""

    maps: str = keys.key(
        "3s5z,3s5z_vs_3s6z", "maps of random play, or none",
        check=measurement.names_of(MAPS, empty=True), accepts="names with commas",
    )  # fmt: skip
    script: str | None = keys.key(
        None, "JaxMARL's baselines/MAPPO/mappo_rnn_smax.py; null: no training", check=_script,
        accepts="a file",
    )  # fmt: skip
    out: str = keys.key("outputs/smax_speed", measurement.OUT)


def main(arguments: list[str]) -> None:
    options = measurement.parse(Options, arguments, "smax_speed")
    out = measurement.folder(options.out)
    if options.script:
        with contextlib.suppress(ConfigError):
            devices.prepare(2)
    shown = [
        f"script=.../{Path(options.script).name}" if x.startswith("script=") else x
        for x in arguments
    ]  # fmt: skip
    result = measurement.described("smax_speed", shown, "jax", "jaxmarl")
    result["environments"] = {name: environments(name) for name in measurement.names(options.maps)}
    if options.script:
        result["training"] = training(Path(options.script))
    paths = measurement.write(out, "smax_speed", result, markdown(result))
    print(markdown(result), *paths, sep="\n")


if __name__ == "__main__":
    command.run(main)
