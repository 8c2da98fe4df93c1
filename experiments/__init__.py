"""The commands of the paper's figures and tables, and of measurements, over public functions.

Modules of the folders paper and benchmarks are imported from here: `experiments.figure_2`,
`python -m experiments.speed`.
"""

from pathlib import Path

__path__ += [str(Path(__file__).parent / folder) for folder in ("paper", "benchmarks")]
