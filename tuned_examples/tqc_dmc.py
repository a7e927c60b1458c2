"""RLlib's TQC on the tasks of `ezm_dmc.py`, with the settings of `sac_dmc.py`.

rllib train file tuned_examples/tqc_dmc.py
"""

from ray.rllib.algorithms.tqc import TQCConfig
from sac_dmc import like_sac, stop  # noqa: F401

config = like_sac(TQCConfig()).training(n_quantiles=25, n_critics=2)

if __name__ == "__main__":
    from rllib_ezm.cli import run_example

    run_example(__file__)
