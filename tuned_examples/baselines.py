"""EZ-M and RLlib's algorithms on the default suite at equal env steps, one after another.

python tuned_examples/baselines.py --num-samples 3
rllib-ezm report ~/ray_results/baselines --reference ezm

Takes the options of `rllib train file`. The files can be trained one by one, or elsewhere, as well.
"""

import sys
from pathlib import Path

from rllib_ezm.cli import INTERRUPTED, main

STOP = '{"num_env_steps_sampled_lifetime": 60000}'
ALGORITHMS = ("ezm", "sac", "mh_sac", "tqc", "ppo", "dreamerv3")
OPTIONS = ["--local-dir", "~/ray_results/baselines", "--stop", STOP]


def train(name: str) -> int:
    """Train one algorithm; returns the exit code."""
    file = Path(__file__).parent / f"{name}_dmc.py"
    return main(["train", "file", str(file), "-n", name, *OPTIONS, *sys.argv[1:]])


if __name__ == "__main__":
    exit_codes = []
    for name in ALGORITHMS:
        exit_codes.append(train(name))
        if exit_codes[-1] == INTERRUPTED:
            break
    sys.exit(max(exit_codes))
