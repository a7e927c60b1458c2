"""The walkers in one network: settings are chosen here, see docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/development_walkers.py --cores 2
"""

from study_file import Study

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=("dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"),
    variants={
        "base": (),
        "reanalyze_25": ("training.reanalyze_ratio=0.25", "training.replay_ratio=1.0"),
        "reanalyze_06": ("training.reanalyze_ratio=0.06", "training.replay_ratio=2.0"),
    },
    seeds=(0, 1),
    cpu_seconds=900,
)
