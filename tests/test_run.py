"""The command itself: files, resuming, signals, crashes, a full or shared directory."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.optimised  # two hundred updates of slower code take longer than compiling
# A game without host callbacks, so that compiled code is shared between the commands.
TINY = [
    "env=specialisation_2", "algo.num_envs=32", "algo.rollout_length=20", "total_steps=128000",
    "switch_at=64000", "eval_every=40", "checkpoint_every=30", "updates_per_call=7",
    "network.hidden=8", "network.depth=1", "algo.epochs=2",
]  # fmt: skip
ANT = [
    "env=ant_4x2", "algo.num_envs=4", "algo.rollout_length=20", "algo.chunk_length=5",
    "total_steps=1600", "switch_at=800", "eval_every=4", "checkpoint_every=3", "eval_episodes=2",
    "updates_per_call=2", "algo.epochs=2", "network.hidden=16",
]  # fmt: skip
# The C engine's callbacks are in no cache: every process compiles, so let it be quick.
QUICKLY = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def command(out, *overrides, job=TINY):
    return [sys.executable, "-m", "lorasa_jax.run", *job, f"out={out}", *overrides]


def run(out, *overrides, code=0, job=TINY):
    arguments = command(out, *overrides, job=job)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=400)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def metrics(out):
    rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "steps_per_second"} for row in rows]


def final_state(out):
    manager = ocp.CheckpointManager((Path(out) / "checkpoints").absolute())
    step = manager.latest_step()
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore()))
    return step, jax.tree.leaves(restored["state"])


def assert_same_end(one, other):
    assert metrics(one) == metrics(other)
    (step, leaves), (other_step, other_leaves) = final_state(one), final_state(other)
    assert step == other_step
    for leaf, other_leaf in zip(leaves, other_leaves, strict=True):
        np.testing.assert_array_equal(leaf, other_leaf)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(out)


def written(lines):
    return len(lines.read_text().splitlines())


def wait_for(process, condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.full
def test_a_run_leaves_its_files_and_a_summary(whole):
    out, done = whole
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "curve.png"} <= {
        path.name for path in out.iterdir()
    }
    rows = metrics(out)
    assert [row["env_steps"] for row in rows] == [0, 25600, 51200, 64000, 76800, 102400, 128000]
    assert [row["phase"] for row in rows] == ["pretrain"] * 4 + ["finetune"] * 3
    for key in ("seed", "eval_return", "eval_return_std", "eval_episodes", "train_return",
                "policy_loss", "value_loss", "entropy"):  # fmt: skip
        assert key in rows[-1]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["eval_return"] == rows[-1]["eval_return"]
    assert summary["parameters"]["actor adapters"] > 0
    assert "final return" in done.stdout


@pytest.mark.full
def test_the_switch_changes_nothing_that_acts(whole):
    """The backbone of the finished run is the pretrained network, bit for bit."""
    manager = ocp.CheckpointManager((whole[0] / "checkpoints").absolute())
    assert 100 in manager.all_steps()  # the end of pretraining is kept

    def state(step):
        args = ocp.args.Composite(state=ocp.args.StandardRestore())
        return manager.restore(step, args=args)["state"]["state"]

    before, after = state(100), state(200)
    jax.tree.map(
        np.testing.assert_array_equal,
        before["actor"]["banks"]["net"],
        after["actor"]["banks"]["net"],
    )
    assert set(after["actor"]["opt_state"]) == {"adapters"}
    moved = jax.tree.leaves(after["actor"]["banks"]["adapters"])
    assert any(np.abs(leaf).max() > 0 for leaf in moved)


@pytest.mark.full
def test_the_same_command_again_says_that_it_is_finished(whole):
    assert "already finished" in run(whole[0]).stdout


@pytest.mark.long
@pytest.mark.full
def test_the_chunk_size_changes_no_bit(whole, tmp_path):
    run(tmp_path / "run", "updates_per_call=10")
    leaves, other = final_state(whole[0])[1], final_state(tmp_path / "run")[1]
    for leaf, other_leaf in zip(leaves, other, strict=True):
        np.testing.assert_array_equal(leaf, other_leaf)


def interrupt(out, number, wanted, job=TINY):
    """Starts a run, sends it a signal once it has written `wanted` lines; returns its output."""
    process = subprocess.Popen(command(out, job=job), stdout=subprocess.PIPE, text=True)
    lines = out / "metrics.jsonl"
    wait_for(process, lambda: lines.exists() and written(lines) >= wanted)
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return output


@pytest.mark.full
@pytest.mark.sample(1, rest="long")
@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGINT, 2), (signal.SIGTERM, 5)])
def test_a_signal_saves_and_the_same_command_ends_bit_for_bit(whole, tmp_path, number, wanted):
    out = tmp_path / "run"
    assert "the same command continues" in interrupt(out, number, wanted)
    assert not (out / "summary.json").exists()
    run(out)
    assert_same_end(whole[0], out)


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 2])
def test_ant_resumes_bit_for_bit_through_the_c_engine(tmp_path, devices, monkeypatch):
    jax.devices()  # this process's own compiler keeps its flags
    monkeypatch.setenv("XLA_FLAGS", QUICKLY)
    one, other, job = tmp_path / "one", tmp_path / "other", [*ANT, f"devices={devices}"]
    run(one, job=job)
    assert "continues" in interrupt(other, signal.SIGTERM, 2, job=job)
    run(other, job=job)
    assert_same_end(one, other)


@pytest.mark.long
def test_killed_at_any_moment_it_continues(whole, tmp_path):
    """kill -9 three times, at moments that drift, then to the end: the same bits."""
    out = tmp_path / "run"
    lines = out / "metrics.jsonl"
    for wanted, extra in ((1, 0.05), (3, 0.2), (5, 0.1)):
        process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL)
        wait_for(
            process, lambda n=wanted: lines.exists() and len(lines.read_text().splitlines()) >= n
        )
        time.sleep(extra)
        process.kill()
        process.wait()
    run(out)
    assert_same_end(whole[0], out)


@pytest.mark.long
def test_a_line_cut_short_and_a_leftover_folder_do_no_harm(whole, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL)
    wait_for(process, lambda: (out / "checkpoints" / "60").exists())
    process.kill()
    process.wait()
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 99')
    (out / "checkpoints" / "90.orbax-checkpoint-tmp").mkdir()
    run(out)
    assert_same_end(whole[0], out)


@pytest.mark.long
def test_another_configuration_in_the_same_folder_is_refused(whole):
    done = run(whole[0], "algo.clip=0.1", "seed=3", code=2)
    assert "algo.clip (0.2 there)" in done.stderr
    assert "seed (0 there)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.long
def test_resume_false_does_not_touch_a_run(whole):
    assert "already holds a run" in run(whole[0], "resume=false", code=2).stderr


@pytest.mark.full
def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    assert "holds files that are no run" in run(tmp_path, code=2).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written" in run(tmp_path / "run", code=2).stderr


@pytest.mark.long
def test_two_processes_do_not_share_a_folder(whole, tmp_path):
    import fcntl

    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "in use by another process" in run(out, code=2).stderr


@pytest.mark.long
def test_a_full_disk_ends_in_one_sentence_and_keeps_the_last_checkpoint(tmp_path):
    """RLIMIT_FSIZE stands in for the disk: no file may grow past 8 KiB once training runs."""
    script = (
        "import resource, sys; from lorasa_jax import checkpoint, run\n"
        "save = checkpoint.Checkpoints.save\n"
        "def limited(self, update, *rest):\n"
        "    if update > 30: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "    return save(self, update, *rest)\n"
        "checkpoint.Checkpoints.save = limited\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "run.main()\n"
    )
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", script, *command(out)[3:]], capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "could not be written" in done.stderr
    assert final_state(out)[0] == 30
    run(out)  # and the same command, with the disk free again, goes on to the end


@pytest.mark.long
def test_a_value_that_is_not_finite_stops_the_run(tmp_path):
    out = tmp_path / "run"
    done = run(out, "algo.actor_lr=1e38", "checkpoint_every=1", "updates_per_call=1", code=1)
    assert "not finite" in done.stderr
    assert "update " in done.stderr
    assert "parameters" in done.stderr or "loss" in done.stderr
    assert not (out / "summary.json").exists()


@pytest.mark.long
def test_seeds_in_one_run_have_their_own_curves(tmp_path):
    out = tmp_path / "run"
    run(out, "num_seeds=2", "seed=5")
    rows = metrics(out)
    assert [row["seed"] for row in rows[:4]] == [5, 6, 5, 6]
    assert len(rows) == 14
    assert rows[2]["train_return"] != rows[3]["train_return"]
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["eval_return_per_seed"]) == 2


@pytest.mark.long
def test_wandb_offline_writes_one_run_per_seed(tmp_path):
    out = tmp_path / "run"
    run(out, "logger=wandb", "num_seeds=2", "total_steps=1280", "switch_at=640")
    folders = sorted((out / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(list(folder.glob("*.wandb")) for folder in folders)
