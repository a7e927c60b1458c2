"""Four tasks that nothing is tuned on, once, with frozen settings: docs/results/protocol.md.

python benchmarks/study.py benchmarks/studies/test_tasks.py --cores 2 --frozen

`FROZEN` of study_frozen.py is what was chosen on the development tasks.
"""

from study_file import Study
from study_frozen import FROZEN

study = Study(
    base="../../tuned_examples/ezm_dmc.py",
    tasks=(
        "dmc:quadruped-walk",
        "dmc:hopper-hop",
        "dmc:acrobot-swingup",
        "dmc:ball_in_cup-catch",
    ),
    settings=(
        "training.train_batch_size_per_learner=88",
        "training.num_steps_sampled_before_learning_starts=4000",
        "training.num_random_steps=4000",
    ),
    variants={"base": (), "frozen": FROZEN},
    seeds=(0, 1),
    cpu_seconds=1800,
    frozen=True,
)
