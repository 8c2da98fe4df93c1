"""What every program shares: output that cannot fail, Ctrl-C at any time, errors as sentences.

Nothing heavy is imported here: this module is the first one of a program.
"""

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from lorasa_jax.errors import ConfigError, TrainingError

# Files and folders that are being written, which nobody needs once the program is interrupted.
unfinished: set[Path] = set()


def begin() -> None:
    """Makes Ctrl-C one sentence from here on, if this process is one of this package's programs.

    Called when the package is imported, whose own imports take seconds.
    """
    words = sys.orig_argv
    module = words[words.index("-m") + 1 : words.index("-m") + 2] if "-m" in words else []
    ours = sys.argv[:1] == ["-m"] and module and module[0].split(".")[0] == __package__
    if ours or Path(sys.argv[0] if sys.argv else "").name == "lorasa":
        _hear(__package__ or "", "stopped before anything began.")


def _hear(program, stopped):
    """Lets Ctrl-C leave with a sentence; returns the handler before, None outside the main thread.

    An exception may be lost in a callback or an import, and waits while code compiles; to leave
    loses nothing, as a killed program leaves its last checkpoint.
    """
    if threading.current_thread() is not threading.main_thread():
        return None

    def leave(number, frame):
        for path in tuple(unfinished):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with contextlib.suppress(OSError):
            os.write(2, f"\n{program}: {stopped}\n".encode(errors="replace"))
        os._exit(130)

    _watch()
    return signal.signal(signal.SIGINT, leave)


def _watch():
    """A thread that hears Ctrl-C while the main one is in compiled code, and leaves if that is due.

    It is due where the handler is one of `_hear`, or says that it is `compiling`.
    """
    global _watching
    if _watching:
        return
    _watching = True
    hear, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def watch():
        while number := os.read(hear, 1):
            handler = signal.getsignal(signal.SIGINT)
            before = handler
            if getattr(getattr(handler, "__self__", None), "compiling", False):
                before = handler.__self__.before(signal.SIGINT)  # pyright: ignore
            if number[0] == signal.SIGINT and getattr(before, "__module__", "") == __name__:
                before(signal.SIGINT, None)  # pyright: ignore

    threading.Thread(target=watch, daemon=True).start()


_watching = False


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask a run to save and stop; a hangup is none under nohup."""
    asked = (signal.SIGINT, signal.SIGTERM)
    hangup = getattr(signal, "SIGHUP", None)  # which not every system has
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return asked
    return (*asked, hangup)


@contextlib.contextmanager
def program(name: str, stopped: str = "stopped.") -> Iterator[None]:
    """A program's whole body: errors that a user can cause leave in one sentence of stderr.

    Exit code 2: refused, or a file cannot be used; 1: had to stop; 130: interrupted, with the
    sentence `stopped`.
    """
    before = _hear(name, stopped)
    _forgive_streams()
    try:
        yield
    except ConfigError as error:
        _leave(name, str(error), 2)
    except TrainingError as error:
        _leave(name, str(error), 1)
    except KeyboardInterrupt:
        _leave(name, stopped, 130)
    except OSError as error:
        _leave(name, of_the_system(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _leave(
            name, "the memory does not suffice; give fewer algo.num_envs, num_seeds, episodes or "
            "eval_episodes, or smaller networks.", 1,
        )  # fmt: skip
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def of_the_system(error: OSError) -> str:
    """What the operating system refused, in a sentence."""
    name = error.filename if isinstance(error.filename, str | os.PathLike) else "a file"
    reason = error.strerror or str(error) or type(error).__name__
    return f"{name} cannot be used ({reason})."


def _leave(name, message, code):
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _forgive_streams():
    """Characters that the encoding lacks are escaped, and a pipe that was closed is silence."""
    for stream_name in ("stdout", "stderr"):
        stream = getattr(sys, stream_name)
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")
        # Of a real stream only: tests and notebooks have others.
        if stream is getattr(sys, f"__{stream_name}__") and stream is not None:
            setattr(sys, stream_name, _Forgiving(stream))


class _Forgiving:
    """A text stream whose reader may leave: what is written from then on goes nowhere."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        self._try(self._stream.flush)

    def _try(self, act):
        try:
            act()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal is gone
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
