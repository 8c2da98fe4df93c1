"""Keeps a finished run as evidence: its configuration, metrics, summary and curve.

    python -m experiments.keep RUN_DIRECTORY NAME

copies them to experiments/results/NAME, without checkpoints and without where they lay.
"""

import json
import shlex
import shutil
import sys
from pathlib import Path

from omegaconf import OmegaConf

RESULTS = Path(__file__).parent / "results"


def keep(run: Path, name: str) -> Path:
    """Copies a finished run's evidence; returns the folder. SystemExit if it is not finished."""
    summary_path = run / "summary.json"
    if not summary_path.exists():
        raise SystemExit(f"{run} holds no finished run; run its command until it ends.")
    folder = RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("metrics.jsonl", "curve.png"):
        shutil.copy(run / file, folder / file)
    config = OmegaConf.load(run / "config.yaml")
    del config["out"]
    OmegaConf.save(config, folder / "config.yaml")
    summary = json.loads(summary_path.read_text())
    words = shlex.split(summary["command"])
    summary["command"] = shlex.join(word for word in words if not word.startswith("out="))
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m experiments.keep RUN_DIRECTORY NAME")
    print(keep(Path(sys.argv[1]), sys.argv[2]))
