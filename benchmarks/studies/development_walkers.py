"""The walkers in one network: settings are chosen here, see docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/development_walkers.py --cores 2
"""

from study_file import Study

BEST_ACTION = ("training.policy_loss=best_action",)
"""Stored targets have no candidates, which the base's `policy_loss` needs."""

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=("dmc:walker-stand", "dmc:walker-walk", "dmc:walker-run"),
    variants={
        "base": (),
        "best_action": BEST_ACTION,
        "reanalyze_25": (*BEST_ACTION, "training.reanalyze_ratio=0.25"),
        "reanalyze_06": (*BEST_ACTION, "training.reanalyze_ratio=0.06"),
        "replay_ratio_1": ("training.replay_ratio=1.0",),
    },
    seeds=(0, 1),
    cpu_seconds=1800,
    halving=(1 / 3,),
)
