import os
import tempfile
from pathlib import Path

# Compiled code is shared between tests and with the commands that they start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "lorasa_jax_tests_cache")
)
os.environ.setdefault("WANDB_MODE", "offline")

import jax
import pytest


def pytest_collection_modifyitems(config, items):
    if os.environ.get("RUN_SLOW") == "1":
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: set RUN_SLOW=1"))


@pytest.fixture(scope="session")
def key():
    return jax.random.key(0)
