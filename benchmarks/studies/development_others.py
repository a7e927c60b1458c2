"""Four bodies in one network: settings are chosen here too, see docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/development_others.py --cores 2

As many segments of each task in a batch, and as many random decisions of each, as the walkers have.
"""

from study_file import Study

BEST_ACTION = ("training.policy_loss=best_action",)
"""Stored targets have no candidates, which the base's `policy_loss` needs."""

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=(
        "dmc:cheetah-run",
        "dmc:cartpole-swingup",
        "dmc:reacher-easy",
        "dmc:finger-turn_easy",
    ),
    settings=(
        "training.train_batch_size_per_learner=88",
        "training.num_steps_sampled_before_learning_starts=4000",
        "training.num_random_steps=4000",
    ),
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
