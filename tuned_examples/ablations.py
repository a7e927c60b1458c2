"""Ablations of the paper's Fig. 5, and of settings of ours, on the default suite: one Tune grid.

rllib train file tuned_examples/ablations.py --num-samples 3 --experiment-name ablations
rllib-ezm report ~/ray_results/ablations --reference full

Seventeen variants; a run of 4,000 env steps per task takes about six minutes of one core, and of
20,000 (`--stop '{"num_env_steps_sampled_lifetime": 60000}'`) has six times the updates. They also
log the similarity of the tasks' gradients (Fig. 3).
"""

from ezm_dmc import config as walkers

from rllib_ezm import EZMConfig, GradientSimilarity, sweep
from rllib_ezm.search.settings import ValueReduction

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


def with_value_heads(number: int, reduction: ValueReduction) -> EZMConfig:
    """Full has the minimum of its 2 heads: there a random pair is both of them."""
    return ablated().world_model(num_value_heads=number).search(value_reduction=reduction)


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
        "2 value heads, mean": with_value_heads(2, "mean"),
        "5 value heads, random pair": with_value_heads(5, "random_pair"),
        "5 value heads, min": with_value_heads(5, "min"),
        "5 value heads, mean": with_value_heads(5, "mean"),
        "a quarter of the targets fresh": ablated().training(reanalyze_ratio=0.25),
        "a sixteenth of the targets fresh": ablated().training(reanalyze_ratio=0.06),
        "no replayed candidate": ablated().training(replayed_candidate=False),
        "no other task's policy": ablated().training(cross_task_probability=0.0),
        "4 refined candidates": ablated().search(refined_candidates=4),
    }
)

stop = {"num_env_steps_sampled_lifetime": ENV_STEPS_PER_TASK * len(full.env_config["tasks"])}

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
