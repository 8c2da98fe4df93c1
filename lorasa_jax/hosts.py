"""One run on several hosts: the same command on each, joined by jax.distributed.

Every process runs the same program; the first one alone writes and speaks. What decides how a run
goes on, and may differ between them, goes through a function of this module, which all processes
call in the same order. With one process they do nothing.
"""

import contextlib
import ctypes
import functools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from lorasa_jax.errors import ConfigError, TrainingError
from lorasa_jax.values import flat, listed, shown

AUTO = "auto"
PATIENCE = 300  # seconds in which all hosts have to come
SILENCE = 30  # seconds without a sign of life after which a host is lost, or at the end waited for
LOST = (
    "a host was lost: it has ended or cannot be reached; the last checkpoint is kept, and the same "
    "command on all hosts continues."
)
NOT_MET = (
    f"not all hosts have met in {PATIENCE} s; start the same command on each, with an address that "
    "all of them reach."
)
SHOWN = " (TF_CPP_MIN_LOG_LEVEL=0 shows what JAX says of it.)"
_FORM = re.compile(r"(\d{1,6})/(\d{1,6})@([\w.-]+:\d{1,5})")
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
# What Gloo, NCCL, JAX's service and gRPC write where a peer has gone.
_GONE = re.compile(
    r"gloo|nccl|coordination|heartbeat|barrier|socket closed|connection (closed|reset|refused)"
    r"|UNAVAILABLE|DEADLINE_EXCEEDED",
    re.IGNORECASE,
)
_WORD = 32  # bytes of a word that processes agree on


@dataclass(frozen=True)
class Host:
    """A process's number among those of a run; the address of the first, None: Slurm knows it."""

    number: int
    count: int
    address: str | None = None


ALONE = Host(0, 1)
_here = ALONE  # this process, once it has joined
_left = threading.Lock()


def written(value: Any, label: str) -> str:
    """The text of the key, if it has a form that `named` reads.

    Raises:
      ConfigError: it has none.
    """
    parts = _FORM.fullmatch(value) if isinstance(value, str) else None
    if value != AUTO and (parts is None or int(parts[1]) >= int(parts[2])):
        raise ConfigError(
            f"{label}={shown(value)} must be NUMBER/COUNT@ADDRESS:PORT, such as 0/2@10.0.0.1:1234 "
            "on the first of two hosts, which has that address, and 1/2@10.0.0.1:1234 on the "
            "other, or auto under Slurm's srun."
        )
    return value


def named(text: str | None) -> Host:
    """The process that the key `hosts` speaks of.

    Raises:
      ConfigError: it is `auto`, and Slurm has not started this process.
    """
    if text is None:
        return ALONE
    if text == AUTO:
        if any(name not in os.environ for name in _SLURM):
            raise ConfigError(
                "hosts=auto needs Slurm's srun to start the processes; start them by it, or give "
                "NUMBER/COUNT@ADDRESS:PORT."
            )
        return Host(int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"]))
    parts = _FORM.fullmatch(text)
    assert parts is not None  # `written` has seen to it
    return Host(int(parts[1]), int(parts[2]), parts[3])


def count() -> int:
    """How many processes this run has."""
    return _here.count


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return _here.number == 0


def taking_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function of a configuration run in all processes that its key `hosts` speaks of.

    Only the first one's standard output is shown. Where a host is lost the process ends at once,
    with a sentence and exit code 1: JAX cannot go on without it.
    """

    @functools.wraps(function)
    def run(config, *arguments, **named_ones):
        host = named(config.hosts)
        if host.count == 1:
            return function(config, *arguments, **named_ones)
        with contextlib.ExitStack() as stack:
            if host.number:
                nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            _join(host, config)
            try:
                return function(config, *arguments, **named_ones)
            except KeyboardInterrupt:
                _leave("stopped at once; the same command on all hosts continues.", 130)
            except Exception as error:
                if not _speaks_of_a_lost_host(error):
                    raise
                _leave(LOST, 1)

    return run


def _join(host, config):
    """Waits for all hosts; from then on JAX's devices are those of all of them."""
    global _here
    if _here == host:
        return
    if _here != ALONE:
        raise ConfigError(f"hosts={config.hosts} differs from before; start a process of its own.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # Its handler of SIGTERM would take the place of ours, which saves.
    jax.config.update("jax_enable_preemption_service", False)
    print(f"waiting for {host.count} hosts ...", flush=True)
    given: dict[str, Any] = dict(
        coordinator_address=host.address, num_processes=host.count, process_id=host.number,
        cluster_detection_method="deactivate",
    )  # fmt: skip
    if host.address is None:
        given = dict(cluster_detection_method="slurm", local_device_ids=_of_this_task(host, config))
    _hear_aborts()
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=PATIENCE, heartbeat_timeout_seconds=SILENCE,
            shutdown_timeout_seconds=SILENCE,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if "before any JAX calls" in str(error):
            raise ConfigError(
                f"hosts={config.hosts} must be given before JAX computes anything; start a process "
                "of its own."
            ) from error
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"hosts={config.hosts}: {NOT_MET[:-1]} ({reason}).") from error
    _here = host


def _of_this_task(host, config):
    """The accelerators of a task of Slurm: all that it is shown, or its part of the node's."""
    each = config.devices // host.count
    shown_ones = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    first = 0 if len(shown_ones) == each else int(os.environ["SLURM_LOCALID"]) * each
    return list(range(first, first + each))


def _hear_aborts():
    """Ends an abort with a sentence: JAX aborts a process whose peers are lost, or do not come.

    No exception reaches Python where the first host is lost, whose service all others listen to.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGABRT, ctypes.cast(_ABORTED, ctypes.c_void_p))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _ABORTED(number):
    sentence, code = (NOT_MET, 2) if _here == ALONE else (LOST, 1)
    _leave(sentence + SHOWN, code)


def _leave(sentence, code):
    """Ends this process at once: JAX's own end would wait for all hosts."""
    if not _left.acquire(blocking=False):
        threading.Event().wait()  # another thread is leaving
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"\n{__package__}: {sentence}\n".encode())
    os._exit(code)


def _speaks_of_a_lost_host(error):
    while error is not None:
        if not isinstance(error, ConfigError) and _GONE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def require_alike(tree: dict[str, Any]) -> None:
    """Refuses configurations that differ between hosts in more than `hosts`.

    Raises:
      ConfigError: they differ; in all processes.
    """
    mine = json.loads(json.dumps({k: x for k, x in flat(tree).items() if k != "hosts"}))
    first = led(lambda: mine)
    differing = sorted(k for k in mine.keys() | first.keys() if mine.get(k) != first.get(k))
    if any_(bool(differing)):
        where = f" (here {listed(differing)})" if differing else ""
        raise ConfigError(f"the hosts' commands differ{where}; give the same on all hosts.")


def led(function: Callable[[], Any]) -> Any:
    """What function() of the first process returns, as JSON has it; others wait and do not call it.

    A refusal, a stop or an error of the system there is raised in all.
    """
    if _here.count == 1:
        return function()
    told, raised = {}, None
    if leads():
        try:
            told = {"value": function()}
        except (ConfigError, TrainingError, OSError) as error:
            kind = "ConfigError" if isinstance(error, ConfigError) else type(error).__name__
            told = {"kind": kind, "text": str(error), "errno": getattr(error, "errno", None)}
            told["reason"] = getattr(error, "strerror", None)
            raised = error
    told = json.loads(_text_of_the_first(json.dumps(told)))
    if raised is not None:
        raise raised
    if "kind" not in told:
        return told["value"]
    if told["kind"] == "ConfigError":
        raise ConfigError(told["text"])
    if told["kind"] == "TrainingError":
        raise TrainingError(told["text"])
    raise OSError(told["errno"], told["reason"] or told["text"])


def _text_of_the_first(text):
    """The first process's text; arrays of few sizes carry it, for each size is compiled."""
    content = text.encode() if leads() else b""
    size = int(first(np.array([len(content)]))[0])
    room = np.zeros(max(64, 1 << size.bit_length()), np.uint8)
    room[: len(content)] = np.frombuffer(content, np.uint8)
    return bytes(first(room)[:size]).decode()


def first(tree: Any) -> Any:
    """The first process's arrays; others give arrays of the same shapes."""
    if _here.count == 1:
        return tree
    return jax.tree.map(lambda x: x[0], multihost_utils.process_allgather(tree))


def compiled_by_first(function: Any, *arguments: Any) -> Callable[..., Any]:
    """A jitted function, compiled and called in the first process alone; all get its results."""
    if leads():
        call = function.lower(*arguments).compile()
    else:
        shapes = jax.eval_shape(function, *arguments)
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        call = lambda *_: zeros  # noqa: E731
    return lambda *given: first(call(*given))


def agreed(word: str | None) -> str | None:
    """The word of the first process that has one."""
    if _here.count == 1:
        return word
    room = np.zeros(_WORD, np.uint8)
    content = (word or "").encode()[:_WORD]
    room[: len(content)] = np.frombuffer(content, np.uint8)
    words = [bytes(row).rstrip(b"\0").decode() for row in multihost_utils.process_allgather(room)]
    return next(filter(None, words), None)


def any_(truth: bool) -> bool:
    """Whether it is true in any process."""
    return agreed("true" if truth else None) is not None


def meet() -> None:
    """Waits until all processes have come here."""
    any_(False)


def readable(tree: Any) -> Any:
    """The tree with arrays that this process can read, whole, where they lie on several hosts."""
    leaves, structure = jax.tree.flatten(tree)
    apart = [x for x in leaves if not is_here(x)]
    if not apart:
        return tree
    everywhere = NamedSharding(apart[0].sharding.mesh, PartitionSpec())
    whole = iter(jax.jit(_same, out_shardings=everywhere)(apart))
    leaves = [x if is_here(x) else np.asarray(next(whole)) for x in leaves]
    return jax.tree.unflatten(structure, leaves)


def is_here(x: Any) -> bool:
    """Whether all of an array lies on devices of this process."""
    return getattr(x, "is_fully_addressable", True)


def placed(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """An array, which all processes have alike or have parts of already, as `sharding` says."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if not is_here(x):
        return x if x.sharding == sharding else jax.jit(_same, out_shardings=sharding)(x)
    if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(placed(jax.random.key_data(x), sharding))
    data = np.asarray(x)
    return jax.make_array_from_callback(data.shape, sharding, lambda part: data[part])


def _same(x):
    return x
