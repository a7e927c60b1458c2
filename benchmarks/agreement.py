"""How often cheaper arithmetic changes the chosen action of a trained network.

States come from a checkpoint's replay buffer, weights are its online network's. For each size,
with the same sampled actions: bf16 against fp32, and statistics updated once a round against after
every simulation (the released order, `sequential_search`), both in fp32.

    python benchmarks/agreement.py CHECKPOINT [--states 512] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from sequential import sequential_search
from timing import pin

from rllib_ezm.search import (
    GumbelPlanner,
    RootOutput,
    SearchOutput,
    SearchSettings,
    draw_noise,
    gumbel_search,
)

SIZES = ((8, 8), (16, 8), (32, 16), (64, 4))


class Found:
    """Choice [B], its value under the search and the root value, of one way to search."""

    def __init__(
        self,
        planner: GumbelPlanner,
        settings: SearchSettings,
        search: Callable[..., SearchOutput] = gumbel_search,
    ) -> None:
        self.planner, self.settings, self.search = planner, settings, search

    def __call__(
        self, root: RootOutput, task_ids: torch.Tensor, noise: object
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.search(
            self.planner.model_in_search(),
            root,
            task_ids,
            self.planner.action_mask[task_ids],
            self.settings,
            noise,
        )
        same = (found.candidates == found.action[:, None]).all(-1)
        return same.int().argmax(-1), found.q_values, found.value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--states", type=int, default=512)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    algo = Algorithm.from_checkpoint(args.checkpoint.resolve())
    module = algo.get_module()
    pin()
    torch.manual_seed(0)
    batch = algo.replay_buffer.sample(args.states)
    observations = torch.as_tensor(batch["obs"][:, 0]).cpu()
    task_ids = torch.from_numpy(batch["task_ids"]).long()
    # One pair of heads for both sides: "random_pair" of the checkpoint draws its own at every call.
    exact, rounded = (
        GumbelPlanner(module.model, module.action_mask, value_reduction="mean", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    report = {}
    print(f"{len(task_ids)} states, {algo.num_updates} updates; share of equal choices")
    for simulations, candidates in SIZES:
        settings = replace(
            module.settings,
            num_simulations=simulations,
            num_candidates=candidates,
            policy_candidates=max(1, candidates // 2),
        )
        noise = draw_noise(len(task_ids), module.action_mask.shape[1], settings, "cpu")
        roots = {p: p.root(observations, task_ids).root for p in (exact, rounded)}
        base = Found(exact, settings)(roots[exact], task_ids, noise)
        row = {}
        for name, other in {
            "bf16": Found(rounded, settings),
            "released_order": Found(exact, settings, sequential_search),
        }.items():
            choice, _, value = other(roots[other.planner], task_ids, noise)
            row[name] = float((choice == base[0]).float().mean())
            # What the other choice costs, by the exact search's own Q.
            spread = base[1].amax(-1) - base[1].amin(-1)
            loss = base[1].gather(1, base[0][:, None]) - base[1].gather(1, choice[:, None])
            row[f"{name}_regret"] = float((loss.squeeze(1) / spread.clamp_min(1e-6)).mean())
            row[f"{name}_value_error"] = float((value - base[2]).abs().mean())
        report[f"{simulations},{candidates}"] = row
        print(
            f"  ({simulations}, {candidates}): " + ", ".join(f"{k} {v:.4f}" for k, v in row.items())
        )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    algo.stop()


if __name__ == "__main__":
    main()
