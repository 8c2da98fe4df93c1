"""What sharing schemes cost: parameters, seconds and memory (paper, Figure 3)."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lorasa_jax.learn.ppo import Hyperparameters, TrainState
from lorasa_jax.learn.team import Role, Team, forward
from lorasa_jax.policy.networks import parameters


class Parameters(NamedTuple):
    """Numbers of trained and of frozen parameters of an actor or a critic.

    banks: of every bank; entries: of one of its entries, such as one agent's adapters.
    """

    trained: int
    frozen: int
    banks: dict[str, int]
    entries: dict[str, int]

    @property
    def total(self) -> int:
        return self.trained + self.frozen


class Measured(NamedTuple):
    """A compiled function: call() runs it and waits; seconds to compile; bytes that it needs.

    bytes are arguments, results and temporaries of the compiled program, as XLA counts them;
    None on backends that do not say.
    """

    call: Callable[[], Any]
    compile_seconds: float
    bytes: int | None


def parameters_of(role: Role) -> Parameters:
    """Counts from shapes alone; nothing is allocated."""

    def init(key):
        return role.scheme.init(key, lambda key: parameters(role.network, key, role.features))

    shapes = jax.eval_shape(init, jax.random.key(0))
    banks = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for name, tree in shapes.items()
    }
    trained = sum(banks[name] for name in role.scheme.trained)
    entries = {name: size // role.scheme.banks[name].entries for name, size in banks.items()}
    return Parameters(trained, sum(banks.values()) - trained, banks, entries)


def team_parameters(team: Team) -> dict[str, Parameters]:
    """{`actor`, `critic`: counts} of a phase's team, see `training.teams.build_teams`."""
    return {"actor": parameters_of(team.actor), "critic": parameters_of(team.critic)}


def acting(team: Team, actor_weights, num_envs: int) -> Measured:
    """One greedy step of all agents in a batch of environments, on noise for observations.

    The weights are given, so that adapters are merged beforehand, as for a finished policy.
    """
    tree, axes = actor_weights
    agents, network = team.env.num_agents, team.actor.network
    obs = jax.random.normal(jax.random.key(0), (num_envs, agents, team.actor.features))
    carry = network.initial_carry(num_envs, agents)

    def step(tree, carry, obs):
        first = jnp.zeros((1, num_envs), bool)
        carry, outputs = forward(network, (tree, axes), carry, obs[None], first, agent_axis=2)
        outputs = jax.tree.map(lambda x: x[0], outputs)
        return carry, team.distribution.to_env(team.distribution.mode(outputs, True))

    return measured(step, tree, carry, obs)


def updating(state: TrainState, team: Team, hp: Hyperparameters, update: Callable) -> Measured:
    """One update from a state, rollout included; update is one of `algorithms.UPDATES`.

    The state is not used up: every call begins from it.
    """
    return measured(lambda state: update(state, team, hp), state)


def measured(function: Callable, *arguments) -> Measured:
    """Compiles a function for its arguments, which every call gets again."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    return Measured(
        lambda: jax.block_until_ready(compiled(*arguments)), seconds, program_bytes(compiled)
    )


def program_bytes(compiled) -> int | None:
    """Bytes of a compiled program's arguments, results and temporaries, aliases counted once."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    parts = sizes.argument_size_in_bytes, sizes.output_size_in_bytes, sizes.temp_size_in_bytes
    return int(sum(parts) - sizes.alias_size_in_bytes)


def median_seconds(functions: dict[str, Callable], repeats: int = 9) -> dict[str, float]:
    """Median seconds of every function, called in turns, once before the clock runs.

    In turns, so that a machine that slows down slows all of them down.
    """
    for function in functions.values():
        function()
    times: dict[str, list] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes() -> dict[str, int]:
    """The most memory that this process has held so far: `host`, and `device` if reported."""
    import resource

    peaks = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    device = jax.local_devices()[0].memory_stats()
    if device and "peak_bytes_in_use" in device:
        peaks["device"] = int(device["peak_bytes_in_use"])
    return peaks
