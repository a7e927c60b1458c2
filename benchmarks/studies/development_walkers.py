"""The walkers in one network: settings are chosen here, see docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/development_walkers.py --cores 2
"""

from study_file import Study

LAZY = ("training.reanalyze_ratio=0.25",)
REFINED = ("search.refined_candidates=4",)

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=("dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"),
    variants={
        "base": (),
        "lazy_25": LAZY,
        "lazy_06": ("training.reanalyze_ratio=0.06",),
        "replay_ratio_1": ("training.replay_ratio=1.0",),
        "lazy_25_replay_ratio_1": (*LAZY, "training.replay_ratio=1.0"),
        "refined_4": REFINED,
        "lazy_25_refined_4": (*LAZY, *REFINED),
    },
    seeds=(0, 1),
    cpu_seconds=1800,
    halving=(1 / 3,),
)
