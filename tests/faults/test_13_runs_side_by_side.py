"""Runs beside each other, readers beside a training, and what a long run holds in memory."""

import gc
import os
import shutil
import threading

import jax.numpy as jnp
import pytest
from tiny_runs import LONG, leaves, settings

from lorasa_jax import envs
from lorasa_jax.training import checkpoint, runs
from lorasa_jax.training.reporter import Reporter


@pytest.mark.full
@pytest.mark.parametrize("name", ["manyagent_ant_2x3", "manyagent_swimmer_4x2"])
def test_generated_robots_touch_no_files(name, tmp_path, monkeypatch):
    """Two at once, of different lengths: nothing is written, and each is what it is alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    other = name.replace("2x3", "3x2").replace("4x2", "2x2")
    made = {}

    def make(i, name):
        made[i] = envs.make(name, engine="native")

    threads = [threading.Thread(target=make, args=(i, n)) for i, n in enumerate((name, other) * 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, n in enumerate((name, other) * 3):
        alone = envs.make(n, engine="native")
        assert (made[i].model.body_mass == alone.model.body_mass).all()
        assert made[i].agents == alone.agents
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_reader_beside_a_training_takes_the_next_checkpoint(unfinished, copy, monkeypatch):
    """Once the newest is deleted while it is read, once its digest is still to come."""
    out = copy(unfinished)
    folder, read = out / "checkpoints", checkpoint.meta
    before = leaves(unfinished)

    def deleted(folder, update):
        if update == 3 and (folder / "3").exists():
            shutil.rmtree(folder / "3" / "state")
            try:
                return read(folder, update)
            finally:
                shutil.rmtree(folder / "3")
                shutil.copytree(unfinished / "checkpoints" / "2", folder / "2", dirs_exist_ok=True)
        return read(folder, update)

    monkeypatch.setattr(checkpoint, "meta", deleted)
    assert runs.load(out).env_steps == 16
    monkeypatch.setattr(checkpoint, "meta", read)
    shutil.copytree(unfinished / "checkpoints" / "3", folder / "3")
    digest = (folder / "3" / "sha256.json").read_bytes()
    (folder / "3" / "sha256.json").unlink()

    def written(_):
        (folder / "3" / "sha256.json").write_bytes(digest)

    monkeypatch.setattr(runs.time, "sleep", written)
    assert leaves(out) == before


def resident():
    """MiB of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


@pytest.mark.full
def test_a_checkpoint_leaves_no_memory_behind(tmp_path):
    saved = checkpoint.Checkpoints(tmp_path / "checkpoints")
    state = {str(i): jnp.arange(1000.0) for i in range(20)}
    counts = (40, 400) if LONG else (40, 120)

    def write(updates):
        for update in updates:
            saved.save(update, state, {})

    write(range(1, counts[0]))
    gc.collect()
    before = resident()
    write(range(counts[0], sum(counts)))
    gc.collect()
    saved.close()
    assert (resident() - before) / counts[1] < 0.02


@pytest.mark.full
def test_an_evaluation_leaves_no_memory_behind(tmp_path, capsys):
    reporter = Reporter(settings(tmp_path))
    row = {
        "seed": 0, "phase": "train", "eval_return": 1.0, "eval_return_std": 0.0,
        "eval_episodes": 2, "steps_per_second": 1.0, "train_return": 1.0, "approx_kl": 0.0,
    }  # fmt: skip

    def evaluate(updates):
        for update in updates:
            reporter.evaluated([{"env_steps": update, **row}])

    evaluate(range(50))
    gc.collect()
    before = resident()
    evaluate(range(50, 350))
    gc.collect()
    assert (resident() - before) / 300 < 0.01
