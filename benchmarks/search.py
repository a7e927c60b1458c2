"""Speed of the tree search: rounds through the folded view against one simulation at a time.

The reference is the sequential search in the released code's order on the training network: one
model call per simulation, fp32, all value heads, policy at every node. The variants take turns on
one pinned core in one process and are compared by CPU time; a GEMM of the same run says what the
core can do.

    python benchmarks/search.py
    python benchmarks/search.py --roots 14 --rounds 9 --json search.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from reference import TrainingNetwork
from sequential import sequential_search
from sizes import FULL
from timing import count_dispatches, gemm, gemm_rate, interleaved, pin, quartiles

from rllib_ezm.models.precision import has_native_bfloat16
from rllib_ezm.models.world_model import WorldModel, WorldModelSpec
from rllib_ezm.search import (
    GumbelPlanner,
    RootOutput,
    SearchModel,
    SearchOutput,
    SearchSettings,
    StepOutput,
    draw_noise,
    gumbel_search,
)

Search = Callable[[], object]


class CountedModel:
    """Counts the calls and rows of another model."""

    def __init__(self, model: SearchModel) -> None:
        self.model, self.calls, self.rows = model, 0, 0
        self.policy = model.policy

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        self.calls += 1
        self.rows += len(latent)
        return self.model.step(latent, action, task_ids)


class FreeModel:
    """Costs next to nothing: what remains of a search is the tree."""

    def __init__(self, most_rows: int, spec: WorldModelSpec, dtype: torch.dtype) -> None:
        self.latent = torch.randn(most_rows, spec.latent_dim).to(dtype)
        self.features = torch.randn(most_rows, spec.latent_dim + spec.embedding_dim).to(dtype)
        self.scalar = torch.randn(most_rows)
        self.mean = torch.randn(most_rows, spec.action_dim)

    def step(
        self, latent: torch.Tensor, action: torch.Tensor, task_ids: torch.Tensor
    ) -> StepOutput:
        rows = len(latent)
        scalar = self.scalar[:rows]
        return StepOutput(self.latent[:rows], self.features[:rows], scalar, scalar)

    def policy(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.mean[: len(features)]
        return mean, mean


class Workload:
    """B roots and everything a search of them needs."""

    def __init__(self, model: WorldModel, settings: SearchSettings, batch: int) -> None:
        spec = model.spec
        self.model, self.settings = model, settings
        self.task_ids = torch.arange(batch) % spec.num_tasks
        self.mask = torch.ones(spec.num_tasks, spec.action_dim)
        self.observations = torch.randn(batch, spec.obs_dim)
        self.noise = draw_noise(batch, spec.action_dim, settings, "cpu")
        self.root = GumbelPlanner(model, self.mask).root(self.observations, self.task_ids).root

    def search(
        self,
        model: SearchModel,
        root: RootOutput,
        search: Callable[..., SearchOutput] = gumbel_search,
    ) -> None:
        mask = self.mask[self.task_ids]
        search(model, root, self.task_ids, mask, self.settings, self.noise)

    def variants(self) -> dict[str, Search]:
        """The reference, the planner in fp32 and, where it is native, bf16; the tree alone."""
        most = len(self.task_ids) * self.settings.num_candidates
        reference = TrainingNetwork(self.model)
        calls: dict[str, Search] = {
            "reference": lambda: self.search(reference, self.root, sequential_search)
        }
        dtypes = {"fp32": "float32", "bf16": "bfloat16"}
        if not has_native_bfloat16("cpu"):
            del dtypes["bf16"]
        for name, precision in dtypes.items():
            planner = GumbelPlanner(self.model, self.mask, precision=precision)
            root = planner.root(self.observations, self.task_ids).root
            calls[name] = self._plan(planner, root)
            free = FreeModel(most, self.model.spec, root.latent.dtype)
            calls[f"tree_{name}"] = self._free(free, root)
        return calls

    def _plan(self, planner: GumbelPlanner, root: RootOutput) -> Search:
        return lambda: planner.plan(root, self.task_ids, self.settings, noise=self.noise)

    def _free(self, model: FreeModel, root: RootOutput) -> Search:
        return lambda: self.search(model, root)


def counts(model: WorldModel, settings: SearchSettings) -> dict[str, float]:
    """Model calls and rows of one search, operators it dispatches, and their growth to B = 512."""
    found = {}
    for batch in (1, 512):
        workload = Workload(model, settings, batch)
        free = CountedModel(FreeModel(batch * settings.num_candidates, model.spec, torch.float32))
        workload.search(free, workload.root)
        planner = GumbelPlanner(model, workload.mask, chunk_size=batch)
        plan = workload._plan(planner, workload.root)
        plan()
        found[batch] = (free.calls, free.rows // batch, count_dispatches(plan))
    (calls, rows, few), (_, _, many) = found[1], found[512]
    return {"calls": calls, "evaluations": rows, "dispatches": few, "growth": many / few}


def measure(workload: Workload, rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds of every variant and of the two GEMMs."""
    gemms = {f"gemm_{name}": gemm(dtype) for name, dtype in GEMM_DTYPES.items()}
    return interleaved({**workload.variants(), **gemms}, rounds)


GEMM_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ratios(name: str, times: dict[str, np.ndarray]) -> dict[str, float]:
    """Reference / variant of each precision, and the tree's share of the variant (medians)."""
    found = {}
    for precision in ("fp32", "bf16"):
        if precision in times:
            found[f"{name}_{precision}"] = float(np.median(times["reference"] / times[precision]))
    roots = name.removeprefix("act").removeprefix("rean")
    for precision in ("fp32", "bf16"):
        if precision in times and roots != "1":
            share = np.median(times[f"tree_{precision}"] / times[precision])
            found[f"overhead_{roots}_{precision}"] = float(share)
    return found


def print_times(name: str, times: dict[str, np.ndarray]) -> None:
    print(f"\n{name}, CPU time (lower quartile, median, upper quartile)")
    for variant, seconds in times.items():
        q = quartiles(seconds * 1e3)
        row = f"{q['q25']:10.1f} {q['median']:10.1f} {q['q75']:10.1f} ms"
        if variant.startswith("gemm"):
            row += f"   {gemm_rate(seconds) / 1e9:.0f} GF/s at best"
        print(f"  {variant:<12}{row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns of every variant")
    parser.add_argument("--roots", type=int, nargs="+", default=[1, 14, 512])
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()
    print(f"core {pin()}, torch {torch.__version__}")
    torch.manual_seed(0)
    settings = SearchSettings()
    model = WorldModel(FULL).eval()
    keys = counts(model, settings)
    report: dict[str, object] = {}
    with torch.no_grad():
        for batch in args.roots:
            name = f"rean{batch}" if batch >= 100 else f"act{batch}"
            times = measure(Workload(model, settings, batch), args.rounds)
            print_times(f"{batch} roots", times)
            keys |= ratios(name, times)
            report[name] = {variant: quartiles(seconds) for variant, seconds in times.items()}
    if args.json:
        args.json.write_text(json.dumps({"keys": keys, "seconds": report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.4g}" for key, value in keys.items()))


if __name__ == "__main__":
    main()
