"""What this process may use of the machine that it runs on."""

import os

import jax


def cpus() -> int:
    """CPUs that this process may use: fewer than there are under taskset, Slurm or a cpuset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def name() -> str:
    """Where figures were measured, such as `NVIDIA H200, 16 CPUs`."""
    return f"{jax.devices()[0].device_kind}, {cpus()} CPUs"
