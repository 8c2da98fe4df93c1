"""Learning on several devices: each has its own seeds; what is left over splits environments.

Devices with different seeds share nothing. Those with the same seeds run the same update on equal
parts of the environments, with the same parameters.
Wherever an update sums or averages over samples it does so over all devices of a seed, so that
parameters stay equal; `Hyperparameters.devices` tells it how many those are. On a CPU a device is a
group of threads: two of them use two cores better than one does.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lorasa_jax import hosts
from lorasa_jax.errors import ConfigError

SEEDS, AXIS = "seeds", "devices"


def split(count: int, num_seeds: int) -> tuple[int, int]:
    """Into how many parts `count` devices split the seeds, and every seed's environments."""
    parts = math.gcd(count, num_seeds)
    return parts, count // parts


def prepare(count: int) -> None:
    """Makes sure that JAX has `count` devices; on a CPU only before its first computation.

    Raises:
      ConfigError: it has fewer, or hosts have unequally many.
    """
    if count == 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count // hosts.count())
    except RuntimeError:
        pass  # JAX has begun to compute, with the devices that it has
    if jax.device_count() < count:
        raise ConfigError(
            f"devices={count} is more than the {jax.device_count()} that JAX has; choose fewer, "
            "or on a CPU start a process of its own."
        )
    each = [len(jax.local_devices(process)) for process in range(hosts.count())]
    if min(each) != max(each):
        raise ConfigError(
            f"devices={count} needs hosts with equally many devices, and they have {each}; show "
            "each of them as many, such as by CUDA_VISIBLE_DEVICES."
        )


def chosen(count: int) -> list[Any]:
    """The `count` devices that a run uses: the first ones of every host."""
    each = count // hosts.count()
    return [
        device for process in range(hosts.count()) for device in jax.local_devices(process)[:each]
    ]


def told(progress: Any) -> Any:
    """A run's progress whose numbers, all but its state, every host can read."""
    return hosts.readable(progress._replace(state=None))._replace(state=progress.state)


def total(tree: Any, hp) -> Any:
    """Every leaf's sum over devices."""
    return jax.lax.psum(tree, AXIS) if hp.devices > 1 else tree


def mean(tree: Any, hp) -> Any:
    """Every leaf's mean over devices."""
    return jax.lax.pmean(tree, AXIS) if hp.devices > 1 else tree


def own_key(key: jax.Array, hp) -> jax.Array:
    """A key that no other device has."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if hp.devices > 1 else key


def share(hp, count: int, num_seeds: int):
    """The numbers of one of `count` devices."""
    _, parts = split(count, num_seeds)
    return hp.replace(num_envs=hp.num_envs // parts, devices=parts)


def compile_split(
    function: Callable, progress, lanes, n: jax.Array, count: int, num_seeds: int
) -> Callable:
    """Compiles function(progress, lanes, n) -> progress for `count` devices; consumes its progress.

    Every leaf of `progress` and `lanes` is [seed, ...] and split over seeds;
    those of `progress.state.runner` are [seed, env, ...] and split over environments too. All else
    is the same on all devices that have a seed. Every host reads what is returned besides `state`.
    """
    parts = split(count, num_seeds)
    mesh = Mesh(np.array(chosen(count)).reshape(parts), (SEEDS, AXIS))
    specs = jax.tree.map(lambda _: P(SEEDS), progress)
    runner = jax.tree.map(lambda _: P(SEEDS, AXIS), progress.state.runner)
    specs = specs._replace(state=specs.state._replace(runner=runner))
    places = jax.tree.map(lambda _, spec: NamedSharding(mesh, spec), progress, specs)
    everywhere = NamedSharding(mesh, P())
    lane_places = NamedSharding(mesh, P(SEEDS))
    shared = jax.shard_map(
        function, mesh=mesh, in_specs=(specs, P(SEEDS), P()), out_specs=specs, check_vma=False
    )
    compiled = jax.jit(shared, donate_argnums=0)

    def placed(progress, lanes, n):
        put = functools.partial(jax.tree.map, hosts.placed)
        lane_tree = jax.tree.map(lambda _: lane_places, lanes)
        return put(progress, places), put(lanes, lane_tree), put(n, everywhere)

    compiled = compiled.lower(*placed(progress, lanes, n)).compile()
    return lambda *arguments: told(compiled(*placed(*arguments)))
