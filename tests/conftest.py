import contextlib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

# Compiled code is shared between tests and with the commands that they start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "lorasa_jax_tests_cache")
)
os.environ.setdefault("WANDB_MODE", "offline")
# Code that is compiled in two thirds of the time and runs slower, in commands that tests start too;
# tests marked `optimised` have what users have, and all of them have where this is set to 0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import optax
import pytest

# What was traced stays, and looking through all of it as often as Python does takes a tenth of the
# tests' time.
gc.set_threshold(10_000, 20, 50)

# Strict: nothing here is broadcast to more axes or converted to another type unless it is said.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# So that what depends on the first device alone is seen. Commands started by tests have one.
jax.config.update("jax_num_cpu_devices", 2)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
QUICK = "jax_disable_most_optimizations"
PATIENCE = 90  # seconds for the browser


@contextlib.contextmanager
def _lenient():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@contextlib.contextmanager
def _optimised():
    before = jax.config.values[QUICK]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(QUICK.upper(), "0")
        jax.config.update(QUICK, False)
        try:
            yield
        finally:
            jax.config.update(QUICK, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """What the markers `upstream` and `optimised` say, for tests and the fixtures they make."""
    with contextlib.ExitStack() as stack:
        for marker, context in (("upstream", _lenient), ("optimised", _optimised)):
            if marker in item.keywords:
                stack.enter_context(context())
        return (yield)


def _adam(*args, adam=optax.adam, **kwargs):
    """Optax's Adam, whose bias correction takes a float to the power of an integer."""
    made = adam(*args, **kwargs)
    return made._replace(update=_lenient()(made.update))


optax.adam = _adam


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name != "test_library.py")
    _mark_the_rest_of_samples(items)
    if os.environ.get("RUN_SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: set RUN_SLOW=1"))


def _mark_the_rest_of_samples(items):
    """Of the cases of a test two (or n, marked `sample(n)`) are plain `pytest`'s.

    The others are `full`, or what `sample(n, rest=...)` says.
    """
    cases = {}
    for item in items:
        if "long" in item.keywords:
            item.add_marker(pytest.mark.full)
        elif "slow" not in item.keywords:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for group in cases.values():
        marker = group[0].get_closest_marker("sample")
        count = marker.args[0] if marker else 2
        rest = marker.kwargs.get("rest", "full") if marker else "full"
        kept = {i * len(group) // count for i in range(count)}
        for i, item in enumerate(group):
            if i not in kept:
                item.add_marker(pytest.mark.full)
                item.add_marker(rest)


@pytest.fixture(scope="session")
def key():
    return jax.random.key(0)


@pytest.fixture
def opened():
    """Opens a page without a screen: opened(path, folder); a skip where there is no browser."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    return _opened


def _opened(path, folder):
    """What the self-test wrote to the console; nothing else may be said there."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage",
        "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-default-apps", "--disable-extensions", "--window-size=480,360",
        f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr", path.as_uri(),
    ]  # fmt: skip
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as browser:  # fmt: skip
        end = threading.Timer(PATIENCE, os.killpg, (browser.pid, signal.SIGKILL))
        end.start()
        try:
            for line in browser.stderr:
                said.append(line)
                if "SELFTEST" in line:
                    break
        finally:
            end.cancel()
            os.killpg(browser.pid, signal.SIGKILL)
    console = [line for line in said if "CONSOLE" in line and "GPU stall" not in line]
    assert len(console) == 1 and "SELFTEST" in console[0], console or said[-20:]
    result = json.loads(re.search(r"SELFTEST (\{.*\}) SELFTEST", console[0])[1].replace('\\"', '"'))
    return result
