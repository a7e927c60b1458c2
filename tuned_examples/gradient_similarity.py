"""The default suite with both probes: which tasks' gradients agree, where imagination goes wrong.

rllib train file tuned_examples/gradient_similarity.py --experiment-name gradients
rllib-ezm report ~/ray_results/gradients

As the paper's Fig. 3: cosine of the tasks' gradients per module, as heat-maps and curves.
"""

from ezm_dmc import config as plain
from ezm_dmc import stop

from rllib_ezm import GradientSimilarity, ModelErrorProbe

config = plain.copy(copy_frozen=False).callbacks([GradientSimilarity, ModelErrorProbe])

__all__ = ["config", "stop"]

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
