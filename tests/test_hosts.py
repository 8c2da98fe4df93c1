"""Processes on this machine that are one run, as on several hosts."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from lorasa_jax import config as configuration
from lorasa_jax import hosts
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import checkpoint, execution, multirun, runs, stored
from lorasa_jax.training.stop import Stop

TINY = [
    "env=probe_observation", "sharing=ps", "network.kind=ff", "network.hidden=4",
    "network.depth=1", "algo.num_envs=2", "algo.rollout_length=4", "algo.chunk_length=4",
    "algo.epochs=1", "eval_episodes=2", "devices=2",
]  # fmt: skip
LOST = 30  # seconds in which the others notice that a host is lost
PATIENCE = 180


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(folder, *words, of=2, own=((), ())):
    """The processes of one run; `own`: words that only one of them is given."""
    port = free_port()
    environment = {k: x for k, x in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}  # JAX's own
    return [
        subprocess.Popen(
            [
                sys.executable, "-m", "lorasa_jax.run", *TINY, *words, *own[i], f"out={folder}",
                f"hosts={i}/{of}@127.0.0.1:{port}",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(of)
    ]  # fmt: skip


def ended(processes):
    """[(exit code, standard output, standard error)] of all of them."""
    try:
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *texts) for p, texts in zip(processes, told, strict=True)]


def reached(folder, update, processes):
    """Waits until there is a checkpoint of an update, or a later one."""
    end = time.monotonic() + PATIENCE
    while max(checkpoint.updates(folder / "checkpoints"), default=0) < update:
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.02)


def trained_here(folder, *words):
    return execution.execute(configuration.load([*TINY, *words, f"out={folder}"]))


def leaves(folder):
    """All arrays of a run's last checkpoint."""
    progress = runs.load(folder).progress
    is_key = lambda x: jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    found = jax.tree.leaves(progress)
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in found]


def rows(folder):
    told = [
        {k: x for k, x in row.items() if k != "steps_per_second"}
        for row in stored.metrics(folder).rows
    ]
    assert len(told) == len((folder / stored.METRICS).read_text().splitlines())
    return told


@pytest.mark.long
@pytest.mark.full
def test_two_hosts_with_a_seed_each_are_one_process_with_two_devices(tmp_path):
    words = ["num_seeds=2", "total_steps=48", "eval_every=2", "checkpoint_every=4"]
    first, second = ended(start(tmp_path / "two", *words))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "final return" in first[1]
    assert "return" not in second[1] and not second[2]
    assert trained_here(tmp_path / "one", *words) is not None
    for two, one in zip(leaves(tmp_path / "two"), leaves(tmp_path / "one"), strict=True):
        assert two.tobytes() == one.tobytes()
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    assert len(rows(tmp_path / "two")) == 2 * 4
    assert checkpoint.updates(tmp_path / "two" / "checkpoints") == [4, 6]
    # One process goes on.
    trained_here(tmp_path / "two", *words, "total_steps=64")
    assert checkpoint.updates(tmp_path / "two" / "checkpoints") == [6, 8]
    assert [row["env_steps"] for row in rows(tmp_path / "two")] == [
        steps for steps in (0, 16, 32, 48, 64) for _ in range(2)
    ]


@pytest.mark.long
def test_two_hosts_with_half_of_the_environments_each_are_one_process_with_two_devices(tmp_path):
    words = ["total_steps=32", "eval_every=2", "checkpoint_every=4"]
    told = ended(start(tmp_path / "two", *words))
    assert [code for code, *_ in told] == [0, 0], told
    trained_here(tmp_path / "one", *words)
    for two, one in zip(leaves(tmp_path / "two"), leaves(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(two.astype(float), one.astype(float), rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_hosts_stop_together_survive_none_and_go_on_to_what_one_process_learns(tmp_path):
    updates = 1500
    words = ["num_seeds=2", f"total_steps={updates * 8}", "eval_every=100", "checkpoint_every=100"]
    words += ["updates_per_call=2"]

    stopped = 0
    for lost in (1, 0):
        processes = start(tmp_path / "two", *words)
        reached(tmp_path / "two", stopped + 1, processes)
        processes[lost].kill()
        began = time.monotonic()
        code, _, error = ended(processes)[1 - lost]
        assert time.monotonic() - began < LOST
        assert code == 1
        assert error.strip().startswith(f"lorasa_jax: {hosts.LOST}") and error.count("\n") == 2
        stopped = checkpoint.updates(tmp_path / "two" / "checkpoints")[-1]

    processes = start(tmp_path / "two", *words)
    reached(tmp_path / "two", stopped + 1, processes)
    processes[1].send_signal(signal.SIGTERM)
    first, second = ended(processes)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    told = re.search(r"SIGTERM: stopped and saved at step ([\d,]+)", first[1])
    assert told is not None
    stopped = int(told[1].replace(",", "")) // 8
    assert stopped == checkpoint.updates(tmp_path / "two" / "checkpoints")[-1] < updates
    assert rows(tmp_path / "two")[-1]["env_steps"] == stopped // 100 * 800

    for name in ("two", "one"):
        trained_here(tmp_path / name, *words)
    for two, one in zip(leaves(tmp_path / "two"), leaves(tmp_path / "one"), strict=True):
        assert two.tobytes() == one.tobytes()
    steps = [row["env_steps"] for row in rows(tmp_path / "two")]
    assert steps == [update * 8 for update in range(0, updates + 1, 100) for _ in range(2)]


@pytest.mark.full
def test_hosts_with_different_commands_are_refused(tmp_path):
    words = ["total_steps=48", "eval_every=2"]
    told = ended(start(tmp_path / "run", *words, own=((), ("algo.epochs=2",))))
    assert [code for code, *_ in told] == [2, 2]
    assert "(here algo.epochs)" in told[1][2]
    assert all("the hosts' commands differ" in error for _, _, error in told)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hosts=2"], "must be NUMBER/COUNT@ADDRESS:PORT"),
        (["hosts=2/2@10.0.0.1:1234"], "must be NUMBER/COUNT@ADDRESS:PORT"),
        (["hosts=0/3@10.0.0.1:1234"], "devices=2 counts the devices of all hosts"),
        (["hosts=auto"], "needs Slurm's srun"),
    ],
)
def test_hosts_that_cannot_be_are_refused(words, told, monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(ConfigError, match=told):
        configuration.load([*TINY, "total_steps=48", *words])


def test_hosts_of_a_batch_are_refused():
    with pytest.raises(ConfigError, match="does not go with --multirun"):
        multirun.batch([*TINY, "seed=0,1", "hydra/launcher=vmap", "hosts=0/2@10.0.0.1:1234"])


def test_hosts_decide_no_result_and_a_saved_run_needs_none_of_them():
    alone, one = (
        configuration.load([*TINY, "total_steps=48", *words])
        for words in ([], ["hosts=1/2@10.0.0.1:1234"])
    )
    assert alone.decisive() == one.decisive() and alone.out == one.out
    assert alone.to_dict() == one.to_dict() and "hosts" not in one.command
    assert hosts.named(one.hosts) == hosts.Host(1, 2, "10.0.0.1:1234")


def test_slurm_says_who_this_process_is(monkeypatch):
    said = ("7", "node[1-2]", "4", "3", "1")
    for name, value in zip(hosts._SLURM, said, strict=True):
        monkeypatch.setenv(name, value)
    host = hosts.named("auto")
    assert host == hosts.Host(3, 4)
    config = configuration.load([*TINY, "total_steps=64", "devices=8", "algo.num_envs=8"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert hosts._of_this_task(host, config) == [2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")  # its own ones alone
    assert hosts._of_this_task(host, config) == [0, 1]


def test_one_process_agrees_with_itself():
    stop = Stop()
    assert not stop.asked()
    stop.signal = "callback"
    assert stop.asked() and hosts.leads() and hosts.count() == 1
    assert hosts.led(lambda: (1, "a")) == (1, "a")
    tree = {"x": np.arange(3)}
    assert hosts.readable(tree) is tree and hosts.first(tree) is tree


def test_a_lost_host_is_told_from_errors_of_our_own():
    gone = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer [10.0.0.1]")
    wrapped = RuntimeError("a checkpoint could not be written")
    wrapped.__cause__ = gone
    assert hosts._speaks_of_a_lost_host(gone) and hosts._speaks_of_a_lost_host(wrapped)
    assert not hosts._speaks_of_a_lost_host(ValueError("shapes differ"))
    assert not hosts._speaks_of_a_lost_host(ConfigError("the folder barrier cannot be used"))
