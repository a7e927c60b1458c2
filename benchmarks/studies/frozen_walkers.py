"""The walkers once more, with frozen settings and new seeds: docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/frozen_walkers.py --cores 2 --frozen
"""

from study_file import Study
from study_frozen import FROZEN

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=("dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"),
    variants={"base": (), "frozen": FROZEN},
    seeds=(10, 11, 12),
    cpu_seconds=1800,
    frozen=True,
)
