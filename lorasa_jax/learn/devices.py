"""Learning on several devices: each plays and learns from its own environments, sums are shared.

Every device runs the same update on an equal part of the environments, with the same parameters.
Wherever an update sums or averages over samples it does so over all devices, so that parameters
stay equal; `Hyperparameters.devices` tells it how many there are. On a CPU a device is a group of
threads: two of them use two cores better than one does.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lorasa_jax.errors import ConfigError

AXIS = "devices"


def prepare(count: int) -> None:
    """Makes sure that JAX has `count` devices; on a CPU only before its first computation.

    Raises:
      ConfigError: it has fewer.
    """
    if count == 1:
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # JAX has begun to compute, with the devices that it has
    if jax.device_count() < count:
        raise ConfigError(
            f"devices={count} is more than the {jax.device_count()} that JAX has; choose fewer, "
            "or on a CPU start a process of its own."
        )


def total(tree: Any, hp) -> Any:
    """Every leaf's sum over devices."""
    return jax.lax.psum(tree, AXIS) if hp.devices > 1 else tree


def mean(tree: Any, hp) -> Any:
    """Every leaf's mean over devices."""
    return jax.lax.pmean(tree, AXIS) if hp.devices > 1 else tree


def own_key(key: jax.Array, hp) -> jax.Array:
    """A key that no other device has."""
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS)) if hp.devices > 1 else key


def share(hp, count: int):
    """The numbers of one of `count` devices."""
    return hp.replace(num_envs=hp.num_envs // count, devices=count)


def compile_split(function: Callable, progress, n: Any, count: int) -> Callable:
    """Compiles function(progress, n) -> progress for `count` devices; consumes its progress.

    n: numbers that all devices have.

    Every leaf of `progress.state.runner` is [seed, env, ...] and split over environments; all
    else is the same on all devices.
    """
    mesh = Mesh(np.array(jax.devices()[:count]), (AXIS,))
    specs = jax.tree.map(lambda _: P(), progress)
    runner = jax.tree.map(lambda _: P(None, AXIS), progress.state.runner)
    specs = specs._replace(state=specs.state._replace(runner=runner))
    places = jax.tree.map(lambda _, spec: NamedSharding(mesh, spec), progress, specs)
    everywhere = NamedSharding(mesh, P())
    split = jax.shard_map(
        function, mesh=mesh, in_specs=(specs, P()), out_specs=specs, check_vma=False
    )
    put = jax.device_put
    compiled = jax.jit(split, donate_argnums=0)
    compiled = compiled.lower(put(progress, places), put(n, everywhere)).compile()
    return lambda progress, n: compiled(put(progress, places), put(n, everywhere))
