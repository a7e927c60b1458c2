"""Speed of a whole update without Ray: targets by full reanalyze, then the gradient step.

The reference searches one simulation at a time in fp32 on the training network and unrolls network
by network. Variants take turns on one pinned core and are compared by CPU time.

    python benchmarks/train_step.py [--small] [--batch-size B] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from learner import UNROLL_STEPS, gradient_step, make_targets, stepwise_unroll
from reference import SequentialPlanner
from sizes import FULL, default_suite_model
from timing import gemm, gemm_rate, interleaved, pin, quartiles
from whole_update import random_batch

from rllib_ezm.models import WorldModel
from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.search import GumbelPlanner, Planner, SearchSettings
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings

TD_STEPS = 5


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="the sizes of ezm_dmc.py")
    parser.add_argument("--batch-size", type=int, help="64, or 66 with --small")
    parser.add_argument("--rounds", type=int, help="3, or 21 with --small")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    return parser.parse_args()


def speed_ups(seconds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Median ratios of the whole training step to the reference, and the share of the search."""
    steps = {
        name: seconds[f"{name} reanalyze"] + seconds[f"{name} update"]
        for name in ("reference", "fp32", "bf16")
    }
    # In fp32 the small networks update faster than under autocast: the best mix counts.
    steps["mixed"] = seconds["bf16 reanalyze"] + seconds["fp32 update"]
    keys = {
        f"step_{name}": float(np.median(steps["reference"] / steps[name]))
        for name in ("fp32", "bf16", "mixed")
    }
    keys["reanalyze_share_bf16"] = float(np.median(seconds["bf16 reanalyze"] / steps["bf16"]))
    return keys


def main() -> None:
    args = parse_arguments()
    core = pin()
    torch.manual_seed(0)
    spec = default_suite_model() if args.small else FULL
    size = args.batch_size or (66 if args.small else 64)
    rounds = args.rounds or (21 if args.small else 3)
    settings = (
        SearchSettings(num_simulations=8, num_candidates=8) if args.small else SearchSettings()
    )
    model = WorldModel(spec)
    batch = random_batch(spec, size, TrainingSettings(), torch.device("cpu"))
    mask = torch.ones(spec.num_tasks, spec.action_dim)
    targets = make_targets(spec, size)
    inputs = (batch["obs"][:, : UNROLL_STEPS + 1], batch["actions"][:, :UNROLL_STEPS])

    def reanalyze(planner: Planner) -> Callable[[], object]:
        run = Reanalyzer(
            planner, settings, unroll_steps=UNROLL_STEPS, td_steps=TD_STEPS, discount=0.99
        )
        return lambda: run(batch)

    def update(dtype: torch.dtype) -> Callable[[], None]:
        return gradient_step(
            model, unroll_world_model, dtype, targets, (*inputs, batch["task_ids"])
        )

    target = copy.deepcopy(model)
    calls: dict[str, Callable[[], object]] = {
        "reference reanalyze": reanalyze(SequentialPlanner(copy.deepcopy(model), mask)),
        "reference update": gradient_step(
            model, stepwise_unroll, torch.float32, targets, (*inputs, batch["task_ids"])
        ),
        "fp32 reanalyze": reanalyze(GumbelPlanner(target, mask)),
        "fp32 update": update(torch.float32),
        "bf16 reanalyze": reanalyze(GumbelPlanner(target, mask, precision="bfloat16")),
        "bf16 update": update(torch.bfloat16),
    }
    gemms = {"gemm fp32": gemm(torch.float32), "gemm bf16": gemm(torch.bfloat16)}
    seconds = interleaved({**calls, **gemms}, rounds)
    print(
        f"D={spec.obs_dim} A={spec.action_dim} H={spec.latent_dim} B={size} "
        f"S={settings.num_simulations} N={settings.num_candidates}, core {core}, {rounds} rounds"
    )
    for name, values in seconds.items():
        q = quartiles(1e3 * values)
        rate = f"   {gemm_rate(values) / 1e9:.0f} GF/s at best" if name.startswith("gemm") else ""
        print(f"{name:<20}{q['q25']:11.1f} {q['median']:11.1f} {q['q75']:11.1f} ms{rate}")
    keys = speed_ups(seconds)
    if args.json:
        report = {name: quartiles(values) for name, values in seconds.items()}
        args.json.write_text(json.dumps({"keys": keys, "seconds": report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.4g}" for key, value in keys.items()))


if __name__ == "__main__":
    main()
