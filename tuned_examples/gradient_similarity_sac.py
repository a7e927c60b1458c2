"""`sac_dmc.py` with the probe of `gradient_similarity.py`: which tasks' gradients agree in SAC.

rllib train file tuned_examples/gradient_similarity_sac.py --experiment-name gradients_sac
rllib-ezm report ~/ray_results/gradients_sac
"""

from ray.rllib.algorithms.sac import SACConfig
from sac_dmc import like_sac, stop

from rllib_ezm.baselines.gradient_similarity import with_gradient_similarity

config = with_gradient_similarity(like_sac(SACConfig()))

__all__ = ["config", "stop"]

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
