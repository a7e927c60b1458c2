"""Speed of collection: env steps per CPU second of one env runner, search and simulator together.

The runner's own planner (fp32 and bf16), the sequential reference in its place, and no search at
all. Variants take turns on one pinned core.

    python benchmarks/collect.py [--small] [--task dmc:walker-run] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from reference import SequentialPlanner
from sizes import default_suite
from timing import interleaved, pin, quartiles

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.models.precision import has_native_bfloat16


def make_runner(task: str, slots: int, precision: str, *, small: bool) -> MultiTaskEnvRunner:
    config = (
        (default_suite() if small else EZMConfig())
        .tasks([task], action_repeat=1, envs_per_task=slots)
        .search(inference_precision=precision)
        .training(num_random_steps=0)
        .debugging(seed=0)
    )
    config.validate()
    return MultiTaskEnvRunner(config=config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="network and search of ezm_dmc.py")
    parser.add_argument("--task", default="dmc:walker-run")
    parser.add_argument("--slots", type=int, default=14, help="environments, searched at once")
    parser.add_argument("--steps", type=int, default=4, help="steps per slot and turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()
    core = pin()
    env_steps = args.slots * args.steps
    runners = {
        name: make_runner(args.task, args.slots, precision, small=args.small)
        for name, precision in {
            "reference": "float32",
            "fp32": "float32",
            **({"bf16": "bfloat16"} if has_native_bfloat16("cpu") else {}),
        }.items()
    }
    module = runners["reference"].module
    module._planner = SequentialPlanner(module.model, module.action_mask)

    def sample(runner: MultiTaskEnvRunner, **options: bool) -> Callable[[], object]:
        return lambda: runner.sample(num_timesteps=env_steps, **options)

    calls = {name: sample(runner) for name, runner in runners.items()}
    calls["random"] = sample(
        make_runner(args.task, args.slots, "float32", small=args.small), random_actions=True
    )
    with torch.no_grad():
        seconds = interleaved(calls, args.rounds, warmup=2)
    print(f"{args.task}, {args.slots} slots, core {core}; env steps per CPU second")
    for name, values in seconds.items():
        q = quartiles(env_steps / values)
        print(f"{name:<12}{q['q25']:9.0f} {q['median']:9.0f} {q['q75']:9.0f}")
    keys = {
        f"collect_{name}": float(np.median(seconds["reference"] / seconds[name]))
        for name in seconds
        if name != "reference"
    }
    if args.json:
        report = {name: quartiles(values) for name, values in seconds.items()}
        args.json.write_text(json.dumps({"keys": keys, "seconds": report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.4g}" for key, value in keys.items()))


if __name__ == "__main__":
    main()
