"""Returns of the random and the do-nothing policy, to compare learning curves with.

    python benchmarks/reference_returns.py --csv rllib_ezm/report/data/reference_returns.csv

Prints, and optionally writes, the mean return and its standard error per task and policy;
`rllib-ezm report` shows them beside learned ones.
"""

from __future__ import annotations

import argparse
import csv

import numpy as np

from rllib_ezm.tasks import task_set

TASKS = (
    "dmc:cartpole-balance",
    "dmc:cartpole-swingup",
    "dmc:walker-stand",
    "dmc:walker-walk",
    "dmc:walker-run",
)


def episode_return(env, act, seed: int) -> float:
    env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        _, reward, terminated, truncated, _ = env.step(act())
        total, done = total + reward, terminated or truncated
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--action-repeat", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--csv")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for name in options.tasks:
        tasks = task_set([{"name": name, "action_repeat": options.action_repeat}])
        env = tasks.make(0)
        size = tasks.action_dim
        policies = {
            "random": lambda size=size: rng.uniform(-1, 1, size),
            "do_nothing": lambda size=size: np.zeros(size),
        }
        for policy, act in policies.items():
            returns = [episode_return(env, act, seed) for seed in range(options.episodes)]
            error = np.std(returns, ddof=1) / np.sqrt(len(returns))
            rows.append((name, policy, round(np.mean(returns), 1), round(error, 1), len(returns)))
            print(*rows[-1], flush=True)
        env.close()
    if options.csv:
        with open(options.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("task", "policy", "return_mean", "standard_error", "episodes"))
            writer.writerows(rows)


if __name__ == "__main__":
    main()
