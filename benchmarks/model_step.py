"""Speed of one call of the model in the search, by rows: what two shortcuts would win.

* Opening both children of every survivor in the second round makes the third round's call
  superfluous (3 calls instead of 4 at S=32, N=16) and evaluates 36 nodes a root instead of 32.
* `torch.compile` of the call (with `--compile`; minutes).

Variants take turns on one pinned core and are compared by CPU time.

    python benchmarks/model_step.py [--compile] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sizes import FULL
from timing import interleaved, pin, quartiles

from rllib_ezm.models import WorldModel
from rllib_ezm.models.categorical import expected_scalar
from rllib_ezm.models.inference import FoldedModel
from rllib_ezm.models.precision import has_native_bfloat16

ROOTS = (1, 14)
FOUR_CALLS, THREE_CALLS = (16, 8, 4, 4), (16, 16, 4)
COMPILED_ROWS = (16, 224)

Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def make_step(model: WorldModel, dtype: torch.dtype) -> Step:
    """What `ModelInSearch.step` computes, with the first two value heads, as one function."""
    view = FoldedModel(model, dtype)
    reward, value = model.reward_support.atoms, model.value_support.atoms
    atoms = torch.stack([reward, value, value]).unsqueeze(1)

    def step(latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        tasks = view.tasks(task_ids)
        reward_logits = view.reward(latent, action, tasks)
        features = view.features(view.dynamics(latent, action, tasks), tasks)
        logits = torch.stack([reward_logits, *view.value(features, (0, 1))])
        return expected_scalar(logits, atoms)

    return step


def inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    latent = torch.randn(rows, FULL.latent_dim).to(dtype)
    action = torch.rand(rows, FULL.action_dim) * 2.0 - 1.0
    return latent, action, torch.arange(rows) % FULL.num_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()
    print(f"core {pin()}, torch {torch.__version__}; CPU ms: quartiles")
    torch.manual_seed(0)
    model = WorldModel(FULL).eval()
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if not has_native_bfloat16("cpu"):
        del dtypes["bf16"]
    rows = sorted({roots * n for roots in ROOTS for n in {*FOUR_CALLS, *THREE_CALLS}})
    keys: dict[str, float] = {}
    calls: dict[str, Callable[[], object]] = {}
    with torch.no_grad():
        for name, dtype in dtypes.items():
            step = make_step(model, dtype)
            for n in rows:
                calls[f"{name} {n}"] = functools.partial(step, *inputs(n, dtype))
            for n in COMPILED_ROWS if args.compile else ():
                compiled, x = torch.compile(step, dynamic=False), inputs(n, dtype)
                start = time.perf_counter()
                compiled(*x)
                keys[f"seconds_to_compile_{name}_{n}"] = time.perf_counter() - start
                calls[f"{name} {n} compiled"] = functools.partial(compiled, *x)
        seconds = interleaved(calls, args.rounds)
    for name, values in seconds.items():
        q = quartiles(1e3 * values)
        print(f"{name:<20}{q['q25']:9.2f} {q['median']:9.2f} {q['q75']:9.2f}")
        if name.endswith("compiled"):
            eager = seconds[name.removesuffix(" compiled")]
            keys["compiled_" + "_".join(name.split()[:2])] = float(np.median(eager / values))
    for name in dtypes:
        for roots in ROOTS:
            four, three = (
                sum(seconds[f"{name} {roots * n}"] for n in sizes)
                for sizes in (FOUR_CALLS, THREE_CALLS)
            )
            keys[f"three_calls_{roots}_{name}"] = float(np.median(np.asarray(four) / three))
    if args.json:
        report = {name: quartiles(values) for name, values in seconds.items()}
        args.json.write_text(json.dumps({"keys": keys, "seconds": report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.3g}" for key, value in keys.items()))


if __name__ == "__main__":
    main()
