"""The ablations of the paper's Fig. 5 on the default suite, as one Tune grid.

rllib train file tuned_examples/ablations.py --num-samples 3 --experiment-name ablations
rllib-ezm report ~/ray_results/ablations --reference full

Eight variants; a run of 4,000 env steps per task takes about six minutes of one core, and of 20,000
(`--stop '{"num_env_steps_sampled_lifetime": 60000}'`) has six times the updates. They also
log the similarity of the tasks' gradients (Fig. 3).
"""

from ezm_dmc import config as walkers

from rllib_ezm import EZMConfig, GradientSimilarity, sweep

ENV_STEPS_PER_TASK = 4_000
SITES = ("rep", "dyn", "rew", "vp")


full = (
    walkers.copy(copy_frozen=False)
    .evaluation(evaluation_interval=2, evaluation_duration=5)
    .callbacks(GradientSimilarity)
)


def ablated() -> EZMConfig:
    return full.copy(copy_frozen=False)


def without_embedding(*sites: str) -> EZMConfig:
    return ablated().world_model(task_embedding=tuple(s for s in SITES if s not in sites))


config = sweep(
    {
        "full": full,
        "no path consistency": ablated().training(path_consistency_coeff=0.0),
        "no independent replay": ablated().replay(independent_replay=False),
        "no embedding in rep": without_embedding("rep"),
        "no embedding in dyn": without_embedding("dyn"),
        "no embedding in rew": without_embedding("rew"),
        "no embedding in vp": without_embedding("vp"),
        "no embedding in dyn, rew, vp": without_embedding("dyn", "rew", "vp"),
    }
)

stop = {"num_env_steps_sampled_lifetime": ENV_STEPS_PER_TASK * len(full.env_config["tasks"])}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
