"""EZ-M and RLlib's algorithms on the default suite, one after another.

python tuned_examples/baselines.py --num-samples 3
rllib-ezm report ~/ray_results/baselines --reference ezm --max-env-steps 4000

All get 4,000 env steps per task but PPO, which gets 100,000: the report compares them at 4,000, and
without the option at the end of each. Takes the options of `rllib train file`. The files can be
trained one by one, or elsewhere, as well.
"""

import sys
from pathlib import Path

from rllib_ezm.cli import INTERRUPTED
from rllib_ezm.cli.main import main

ALGORITHMS = ("ezm", "sac", "mh_sac", "tqc", "ppo", "dreamerv3")
OPTIONS = ["--local-dir", "~/ray_results/baselines"]
STOPS = {"ezm": ["--stop", '{"num_env_steps_sampled_lifetime": 12000}']}
"""The others' files say when to stop."""


def train(name: str) -> int:
    """Train one algorithm; returns the exit code."""
    file = Path(__file__).parent / f"{name}_dmc.py"
    options = [*OPTIONS, *STOPS.get(name, []), *sys.argv[1:]]
    return main(["train", "file", str(file), "-n", name, *options])


if __name__ == "__main__":
    exit_codes = []
    for name in ALGORITHMS:
        exit_codes.append(train(name))
        if exit_codes[-1] in INTERRUPTED:
            break
    sys.exit(max(exit_codes))
