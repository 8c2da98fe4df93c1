"""Errors of others end in our sentence: W&B, the system, memory, encodings, Hydra, interrupts."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from lorasa_jax import config as configuration
from lorasa_jax import envs, terminal
from lorasa_jax.envs import video
from lorasa_jax.errors import ConfigError
from lorasa_jax.training import memory, wandb_logger
from lorasa_jax.training.stop import Stop

pytestmark = pytest.mark.faults

SMALL = ["env=specialisation_2", "logger=wandb"]


def environment(config):
    return envs.make(**config.env)


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "words",
    [
        ["num_seeds=1e9"], ["network.hidden=1e9"], ["eval_episodes=1e9"],
        ["network.hidden=1e9", "num_seeds=1e9"], ["network.hidden=1e6", "network.kind=ff"],
        ["algo.num_envs=1e9", "total_steps=4e11", "algo.minibatches=1", "switch_at=2e11",
         "algo.rollout_length=200", "algo.chunk_length=10"],
    ],
)  # fmt: skip
def test_memory_is_estimated_before_anything_compiles(words):
    config = configuration.load(["env=specialisation_2", *words])
    with pytest.raises(ConfigError, match=r"at least [\d,.]+ [GM]iB of memory") as refusal:
        memory.check(config, environment(config))
    assert words[0].partition("=")[0] in str(refusal.value)


@pytest.mark.full
@pytest.mark.upstream
def test_what_fits_is_not_refused_for_its_memory():
    for words in (["env=ant_4x2"], ["env=smax_3m", "preset=tuned"], ["env=specialisation_2"]):
        config = configuration.load(words)
        memory.check(config, environment(config))


class Run:
    def __init__(self, **settings):
        self.settings, self.told, self.summary = settings, [], {}

    def log(self, values, step):
        if self.settings["mode"] == "online" and len(self.told) == 1:
            raise wandb_logger.wandb.CommError("run was deleted (410)")
        self.told.append(step)

    def finish(self):
        self.told.append("finished")


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "error",
    [
        wandb_logger.wandb.CommError("cannot reach\nthe server"),
        wandb_logger.wandb.errors.AuthenticationError("wrong key"),
        wandb_logger.wandb.UsageError("Invalid id"), OSError(28, "No space left on device"),
    ],
)  # fmt: skip
def test_a_service_that_fails_leaves_training_offline(error, monkeypatch, tmp_path, capsys):
    made = []

    def init(**settings):
        if settings["mode"] == "online":
            raise error
        made.append(Run(**settings))
        return made[-1]

    monkeypatch.setattr(wandb_logger.wandb, "init", init)
    monkeypatch.setattr(wandb_logger.wandb, "teardown", lambda: None)
    monkeypatch.setenv("WANDB_MODE", "online")
    config = configuration.load([*SMALL, f"out={tmp_path}"])
    logger = wandb_logger.WandbLogger(config)
    logger.log([{"seed": 0, "env_steps": 4, "x": 1}])
    logger.close()
    said = capsys.readouterr().out
    assert len(said.strip().splitlines()) == 1 and "kept offline" in said
    assert made[0].settings["mode"] == "offline" and made[0].told == [4, "finished"]


@pytest.mark.long
def test_a_service_that_cannot_be_reached_leaves_files_to_upload(monkeypatch, tmp_path, capsys):
    """The library itself, with nobody at the address; it tries for a minute and a half."""
    for name, value in (("BASE_URL", "http://127.0.0.1:9"), ("API_KEY", "a" * 40),
                        ("MODE", "online"), ("SILENT", "true"), ("INIT_TIMEOUT", "5")):  # fmt: skip
        monkeypatch.setenv(f"WANDB_{name}", value)
    words = [*SMALL, f"out={tmp_path}", "num_seeds=2"]
    logger = wandb_logger.WandbLogger(configuration.load(words))
    for seed in (0, 1):
        logger.log([{"seed": seed, "env_steps": 4, "x": 1}])
    logger.close()
    assert capsys.readouterr().out.count("kept offline") == 1
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_a_run_that_was_deleted_online_is_left_and_that_is_said(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(wandb_logger.wandb, "init", lambda **settings: Run(**settings))
    monkeypatch.setenv("WANDB_MODE", "online")
    logger = wandb_logger.WandbLogger(configuration.load([*SMALL, f"out={tmp_path}"]))
    for step in range(4):
        logger.log([{"seed": 0, "env_steps": step, "x": 1}])
    logger.close()
    said = capsys.readouterr().out
    assert len(said.strip().splitlines()) == 1 and "training goes on" in said


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", ["a:b", "a#b", "a?b", "a%b", "a/b", "x" * 129, "a\nb", ""])
def test_names_that_the_service_refuses_are_refused_at_once(name):
    for key in ("project", "entity", "group"):
        with pytest.raises(ConfigError):
            configuration.load([*SMALL, f"logger.{key}={name}"])


ERRORS = [
    OSError(number, os.strerror(number), "runs/x")
    for number in (errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS,
                   errno.EISDIR, errno.ELOOP, errno.EIO, errno.EMFILE)
]  # fmt: skip
ERRORS += [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), ConfigError("x\ny.")]


@pytest.mark.sample(12)
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_errors_of_the_system_are_one_sentence(error, capsys):
    with pytest.raises(SystemExit) as left, terminal.program("lorasa_jax"):
        raise error
    said = capsys.readouterr().err
    assert left.value.code == (1 if isinstance(error, MemoryError | RuntimeError) and not
                               isinstance(error, ConfigError) else 2)  # fmt: skip
    assert said.startswith("lorasa_jax: ") and len(said.splitlines()) == 1


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a defect"), terminal.program("lorasa_jax"):
        raise RuntimeError("a defect")


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("out=~/x", "write $HOME"), ("env.k=größe", "quotation marks"), ("seed=", "must be"),
        ("algo.clip=[1", "quotation marks"), ("algo.clip=a b=c", "quotation marks"),
        ("=3", "form key=value"),
    ],
)  # fmt: skip
def test_hydras_grammar_is_explained(word, told):
    with pytest.raises(ConfigError) as refusal:
        configuration.load([word])
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_film_without_its_library_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg" if kind == "mp4" else "PIL", None)
    with pytest.raises(ConfigError, match="pip install"):
        video.write_video(tmp_path / f"a.{kind}", iter(()), rate=30.0)
    assert not list(tmp_path.iterdir())


def test_hangup_stops_as_termination_does_but_not_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == "SIGHUP"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_while_compiling_is_not_kept_for_later():
    # Under nohup or in the background of a script it would be ignored, as it should be there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Stop() as stop:
            stop.compiling = True
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
    finally:
        signal.signal(signal.SIGINT, before)


COMMAND = [sys.executable, "-m", "lorasa_jax.run", "env=specialisation_2", "network.hidden=8"]


def interrupted(command, seconds):
    """(exit code, stderr) of a command that gets Ctrl-C after some seconds."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said.strip()


@pytest.mark.sample(2)
@pytest.mark.parametrize("seconds", [1.0, 4.0, 0.5, 1.5, 2.0, 3.0, 6.0, 8.0])
def test_an_interrupt_in_the_first_seconds_is_one_sentence(seconds, tmp_path):
    code, said = interrupted([*COMMAND, f"out={tmp_path / 'run'}"], seconds)
    assert code == 130, said
    assert len(said.splitlines()) == 1 and "stopped" in said


def test_ascii_terminals_and_closed_pipes_are_no_errors(tmp_path):
    shown = ["--cfg", "job", f"out={tmp_path / 'größe'}"]
    process = subprocess.Popen(
        [*COMMAND, *shown], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    with process.stderr:
        with contextlib.suppress(OSError):
            process.stdout.close()
        said = process.stderr.read()
    assert process.wait(timeout=60) == 0, said
    assert not said


def test_letters_that_an_encoding_lacks_are_escaped(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--cfg", "job", f"out={tmp_path / 'größe'}"], capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr
    assert rb"gr\xf6\xdfe" in done.stdout
