"""A whole update compiled against eager: speed, time to compile, and whether both agree.

One core, CPU time, both sides in turn in one process. Random numbers are drawn alike on both sides,
so that results can be compared.

    python benchmarks/compiled.py [--full] [--precision float32] [--mode default] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sizes import default_suite, default_suite_model
from timing import DispatchCounter, interleaved, pin
from torch._inductor import config as inductor
from whole_update import HARD, make_step, random_batch

from rllib_ezm.models import WorldModel
from rllib_ezm.search import SearchSettings
from rllib_ezm.update.step import GradientStep, StepOutput


def largest_difference(found: StepOutput, expected: StepOutput) -> float:
    """Of the loss, and of the priorities relative to their largest."""
    loss = (found.loss - expected.loss).abs() / expected.loss.abs()
    scale = expected.priorities.abs().max()
    priorities = (found.priorities - expected.priorities).abs().max() / scale
    return float(torch.maximum(loss, priorities))


def equal_actions(found: GradientStep, expected: GradientStep, batch: dict[str, Any]) -> float:
    """Share of the states for which both choose the same action."""
    actions = []
    for step in (found, expected):
        torch.manual_seed(1)
        actions.append(step.targets(batch).targets.policy_mean)
    return float(torch.isclose(*actions, atol=1e-4).all(dim=-1).float().mean())


def take_over(step: GradientStep, other: GradientStep) -> None:
    """Give a step the weights of another one."""
    for ours, theirs in zip(networks(step), networks(other), strict=True):
        ours.load_state_dict(theirs.state_dict())


def networks(step: GradientStep) -> tuple[WorldModel, WorldModel]:
    """Online and target network."""
    planner: Any = step.reanalyzer.planner
    return step.model, planner.model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the paper's network")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--mode", default="default")
    parser.add_argument("--batch-size", type=int, help="66, or 64 with --full")
    parser.add_argument("--rounds", type=int, help="21, or 3 with --full")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    core = pin()
    inductor.fallback_random = True
    config = default_suite()
    if args.full:
        spec, search = HARD, SearchSettings()
    else:
        spec = default_suite_model()
        search = SearchSettings(
            num_simulations=config.num_simulations,
            num_candidates=config.num_candidates,
            policy_candidates=config.policy_candidates,
        )
    size = args.batch_size or (64 if args.full else 66)
    rounds = args.rounds or (3 if args.full else 21)
    eager = make_step(spec, search, args.precision, "off")
    compiled = make_step(spec, search, args.precision, args.mode)
    batch = random_batch(spec, size, eager.settings, torch.device("cpu"))
    started = time.perf_counter()
    torch.manual_seed(0)
    first = compiled(batch)
    compile_seconds = time.perf_counter() - started
    torch.manual_seed(0)
    differences = [largest_difference(first, eager(batch))]
    for seed in range(1, 20):
        outputs = []
        for step in (compiled, eager):
            torch.manual_seed(seed)
            outputs.append(step(batch))
        differences.append(largest_difference(*outputs))
    take_over(compiled, eager)
    same = equal_actions(compiled, eager, batch)
    with DispatchCounter() as counted:
        eager(batch)
    seconds = interleaved(
        {
            "eager targets": lambda: eager.targets(batch),
            "compiled targets": lambda: compiled.targets(batch),
            "eager update": lambda: eager(batch),
            "compiled update": lambda: compiled(batch),
        },
        rounds,
    )
    ratio = {
        part: float(np.median(seconds[f"eager {part}"] / seconds[f"compiled {part}"]))
        for part in ("targets", "update")
    }
    figures = {
        "size": "full" if args.full else "ezm_dmc.py",
        "batch": size,
        "precision": args.precision,
        "mode": args.mode,
        "core": core,
        "compile_seconds": round(compile_seconds, 1),
        "eager_update_ms": 1e3 * float(np.median(seconds["eager update"])),
        "compiled_update_ms": 1e3 * float(np.median(seconds["compiled update"])),
        "targets_speed_up": ratio["targets"],
        "update_speed_up": ratio["update"],
        "largest_difference_first_update": differences[0],
        "largest_difference_20_updates": max(differences),
        "same_actions": same,
        "dispatches_of_an_eager_update": counted.count,
    }
    for name, value in figures.items():
        print(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
