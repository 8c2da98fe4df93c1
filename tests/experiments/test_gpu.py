"""The accelerator's script, tiny and on a CPU."""

import json

import pytest

from experiments import gpu
from lorasa_jax.errors import ConfigError


@pytest.mark.long
@pytest.mark.upstream
def test_it_runs_tiny_on_a_cpu_and_goes_on(tmp_path, capsys):
    words = [f"out={tmp_path}", "size=0.02", "cells=3s5z 128 x 1"]
    gpu.main(words)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(row["passed"] for row in found["checks"].values()) and len(found["checks"]) == 4
    assert found["cells"]["3s5z 128 x 1"]["steps_per_second"] > 0
    assert "3s5z 128 x 1" in (tmp_path / "gpu.md").read_text()
    capsys.readouterr()
    gpu.main(words)
    assert capsys.readouterr().out == ""


@pytest.mark.full
def test_checks_pass_on_this_machine(tmp_path, capsys):
    gpu.main([f"out={tmp_path}", "checks=rollout,update", "cells="])
    assert capsys.readouterr().out.count("passed") == 2


def test_a_cell_that_fails_is_told_and_what_has_no_time_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "cell", lambda overrides, size: 1 / 0)
    gpu.main([f"out={tmp_path}", "checks=", "cells=ant native"])
    assert "ant native: failed, ZeroDivisionError" in capsys.readouterr().out
    gpu.main([f"out={tmp_path}", "checks=", "cells=ant warp", "minutes=1e-9"])
    assert "not begun in 1e-09 minutes: ant warp" in capsys.readouterr().out


def test_unknown_cells_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cells=ant wrap is not known"):
        gpu.main([f"out={tmp_path}", "cells=ant wrap"])
