"""What a GPU makes of EZ-M: results against the CPU, updates/s, searches/s, limits of the card.

torch and numpy only, in one process, within eight minutes; writes its JSON after each part, so that
what is cut off keeps what it has. Updates are those of `rllib_ezm.update` with random batches: no
simulation, no replay buffer, no Ray.

    PYTHONPATH=$PWD python benchmarks/gpu.py [--json gpu.json] [--minutes 8]
    PYTHONPATH=$PWD python benchmarks/gpu.py --dry     # every part at a tiny size, also on a CPU
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from whole_update import HARD, MEDIUM, TINY, make_step, random_batch

from rllib_ezm.models import WorldModelSpec
from rllib_ezm.models.inference import FoldedModel
from rllib_ezm.search import SearchNoise, SearchSettings, draw_noise
from rllib_ezm.update.captured import CudaRecorder

Figures = dict[str, Any]
SMALL_SEARCH = SearchSettings(num_simulations=4, num_candidates=4, policy_candidates=2)


class Dispatches(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Benchmark:
    """The parts, at the sizes of a card or tiny."""

    def __init__(self, device: torch.device, dry: bool) -> None:
        self.device, self.dry = device, dry
        self.hard, self.medium = (TINY, TINY) if dry else (HARD, MEDIUM)
        self.search = SMALL_SEARCH if dry else SearchSettings()
        self.batch_size = 6 if dry else 512
        self.seconds_per_figure = 0.01 if dry else 4.0

    def versions(self) -> Figures:
        """Card, driver and PyTorch."""
        found: Figures = {"torch": torch.__version__, "cuda": torch.version.cuda, "dry": self.dry}
        if self.device.type == "cuda":
            card = torch.cuda.get_device_properties(self.device)
            found |= {
                "card": card.name,
                "memory_gib": round(card.total_memory / 2**30, 1),
                "capability": f"{card.major}.{card.minor}",
            }
        return found

    def agreement(self) -> Figures:
        """Search, loss and gradient of fresh inputs in fp32 against the CPU in fp64."""
        torch.backends.cuda.matmul.allow_tf32 = False
        size = 6 if self.dry else 56
        exact, found = (
            make_step(self.hard, self.search, device=d, dtype=t, value_reduction="mean")
            for d, t in (("cpu", torch.float64), (self.device, torch.float32))
        )
        batch = random_batch(self.hard, size, exact.settings, torch.device("cpu"))
        double = {n: x.double() if x.is_floating_point() else x for n, x in batch.items()}
        noise = draw_noise(size, self.hard.action_dim, self.search, "cpu")
        plans = []
        for step, columns in ((exact, double), (found, batch)):
            planner: Any = step.reanalyzer.planner
            planner._view = FoldedModel(planner.model, columns["obs"].dtype)
            observations = columns["obs"][:, 0].to(planner.action_mask.device)
            tasks = columns["task_ids"].to(observations.device)
            root = planner.root(observations, tasks).root
            drawn = SearchNoise(*(x.to(observations) for x in noise))
            plans.append(planner.plan(root, tasks, self.search, noise=drawn))
        losses = []
        for step, columns in ((exact, double), (found, batch)):
            on_device = {n: x.to(step.build_targets.action_mask.device) for n, x in columns.items()}
            step.model.train()
            unroll = step.unroll(on_device)
            loss = unroll.value_logits.square().mean() + unroll.reward_logits.square().mean()
            loss.backward()
            losses.append((loss.detach(), step.model.dynamics_model.mix.weight.grad))
        value = [plan.value.double().cpu() for plan in plans]
        action = [plan.action.double().cpu() for plan in plans]
        loss, gradient = ([x.double().cpu() for x in pair] for pair in zip(*losses, strict=True))
        error = (gradient[0] - gradient[1]).norm() / gradient[0].norm()
        return {
            "roots": size,
            "same_action": float(torch.isclose(*action, atol=1e-3).all(-1).double().mean()),
            "largest_value_error": float((value[0] - value[1]).abs().max()),
            "relative_loss_error": float((loss[0] - loss[1]).abs() / loss[0].abs()),
            "relative_gradient_error": float(error),
        }

    def limits(self) -> Figures:
        """The card's own: matrix products and copies."""
        size = 128 if self.dry else 8192
        found: Figures = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            left, right = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
            seconds = self.time(lambda left=left, right=right: left @ right)
            found[f"{name}_tflops"] = 2e-12 * size**3 / seconds
        source = torch.zeros(2**20 if self.dry else 2**28, device=self.device)
        target = torch.empty_like(source)
        seconds = self.time(lambda: target.copy_(source))
        found["copy_gb_per_s"] = 2e-9 * source.nbytes / seconds
        nothing = torch.zeros(1, device=self.device)
        found["launch_us"] = 1e6 * self.time(lambda: nothing.add_(1))
        return found

    def updates(self, spec: WorldModelSpec, precision: str, how: str) -> Figures:
        """Updates/s of one way to run them."""
        compile_mode = "default" if "compiled" in how else "off"
        step = make_step(spec, self.search, precision, compile_mode, self.device)
        if "captured" in how:
            step.capture(CudaRecorder())
        batch = random_batch(spec, self.batch_size, step.settings, self.device)
        started = time.perf_counter()
        for _ in range(3):  # compiles, warms up, records
            step(batch)
        self.wait()
        found: Figures = {"first_updates_seconds": time.perf_counter() - started}
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        found["updates_per_second"] = 1.0 / self.time(lambda: step(batch))
        if self.device.type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        if how == "eager":
            with Dispatches() as counted:
                step(batch)
            found["dispatches"] = counted.count
            with FlopCounterMode(display=False) as flops:
                step(batch)
            found["flops"] = flops.get_total_flops()
        step.check_finite(step(batch), batch)
        return found

    def searches(self, precision: str) -> Figures:
        """Searches/s by the number of roots, as an env runner makes them."""
        step = make_step(self.hard, self.search, precision, device=self.device)
        planner: Any = step.reanalyzer.planner
        found: Figures = {}
        for roots in (1, 3) if self.dry else (1, 14, 512, 3072):
            observations = torch.randn(roots, self.hard.obs_dim, device=self.device)
            tasks = torch.arange(roots, device=self.device) % self.hard.num_tasks

            def act(observations: torch.Tensor = observations, tasks: torch.Tensor = tasks) -> Any:
                return planner.plan(planner.root(observations, tasks).root, tasks, self.search)

            seconds = self.time(act)
            found[f"{roots}_roots"] = {"ms": 1e3 * seconds, "searches_per_second": roots / seconds}
        return found

    def parts(self) -> dict[str, Callable[[], Figures]]:
        """Name -> part, the most wanted first."""
        parts: dict[str, Callable[[], Figures]] = {
            "versions": self.versions,
            "agreement": self.agreement,
            "limits": self.limits,
        }
        ways = ["eager", "captured"] if self.device.type == "cuda" else ["eager"]
        compiled = ["compiled", "compiled and captured"] if len(ways) > 1 else []
        for precision in ("bfloat16", "float32"):
            for how in ways:
                for name, spec in (("hard", self.hard), ("medium", self.medium)):
                    parts[f"updates, {name}, {precision}, {how}"] = (
                        lambda s=spec, p=precision, h=how: self.updates(s, p, h)
                    )
            parts[f"searches, {precision}"] = lambda p=precision: self.searches(p)
        for how in compiled:
            parts[f"updates, hard, bfloat16, {how}"] = lambda h=how: self.updates(
                self.hard, "bfloat16", h
            )
        return parts

    def time(self, call: Callable[[], object]) -> float:
        """Seconds of one call, the median of several blocks."""
        call()
        self.wait()
        started = time.perf_counter()
        call()
        self.wait()
        once = max(time.perf_counter() - started, 1e-7)
        calls = max(1, int(self.seconds_per_figure / 5 / once))
        blocks = []
        for _ in range(5):
            started = time.perf_counter()
            for _ in range(calls):
                call()
            self.wait()
            blocks.append((time.perf_counter() - started) / calls)
        return float(np.median(blocks))

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="tiny sizes")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no part after these")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    args = parser.parse_args()
    if not (torch.cuda.is_available() or args.dry):
        sys.exit("There is no CUDA device here. --dry tries every part at a tiny size.")
    benchmark = Benchmark(torch.device("cuda" if torch.cuda.is_available() else "cpu"), args.dry)
    started, figures, failed = time.perf_counter(), {}, 0
    for name, part in benchmark.parts().items():
        if time.perf_counter() - started > 60.0 * args.minutes:
            figures[name] = {"left_out": "no time"}
        else:
            try:
                figures[name] = part()
            except Exception as error:  # noqa: BLE001 - the other parts are wanted all the same
                traceback.print_exc()
                figures[name] = {"error": f"{type(error).__name__}: {error}"}
                failed += 1
        print(f"{name:45s} {json.dumps(figures[name], default=str)}", flush=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{time.perf_counter() - started:.0f} s, {failed} parts failed, written to {args.json}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
