"""Four bodies in one network: settings are chosen here too, see docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/development_others.py --cores 2

As many segments of each task in a batch, and as many random decisions of each, as the walkers have.
"""

from study_file import Study

LAZY = ("training.reanalyze_ratio=0.25",)
REFINED = ("search.refined_candidates=4",)

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
        "lazy_25": LAZY,
        "replay_ratio_1": ("training.replay_ratio=1.0",),
        "refined_4": REFINED,
        "lazy_25_refined_4": (*LAZY, *REFINED),
    },
    seeds=(0, 1),
    cpu_seconds=1800,
    halving=(1 / 3,),
)
