"""Multi-head SAC on the tasks of `ezm_dmc.py`: a policy head and Q heads per task, shared trunks.

rllib train file tuned_examples/mh_sac_dmc.py
"""

from ray.rllib.algorithms.sac import SACConfig
from sac_dmc import like_sac, stop  # noqa: F401

from rllib_ezm.baselines import multi_head

config = multi_head(like_sac(SACConfig()))

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
