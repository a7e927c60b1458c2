"""Speed of one gradient step: unroll, losses, backward, clipping, fused Adam. No targets, no Ray.

The batched unroll beside a reference that calls every network once per step, and beside itself
under bfloat16 autocast, with matrix products as the yardstick. All take turns on one pinned core.

    python benchmarks/learner.py [--small] [--json FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sizes import FULL, default_suite_model
from timing import count_dispatches, gemm, gemm_rate, interleaved, pin, quartiles

from rllib_ezm.models import WorldModel, WorldModelSpec
from rllib_ezm.models.unroll import Unroll, scale_gradient, unroll_world_model
from rllib_ezm.update.objective import LossWeights, loss_terms, total_loss
from rllib_ezm.update.targets import Targets

UNROLL_STEPS = 5


def stepwise_unroll(
    model: WorldModel, observations: torch.Tensor, actions: torch.Tensor, task_ids: torch.Tensor
) -> Unroll:
    """The reference: reward, value and policy networks are called once per step."""
    batch, steps = actions.shape[:2]
    embedding = model.embed(task_ids)
    latent = model.represent(observations[:, 0], task_ids, embedding)
    rewards, predictions, latents = [], [model.predict(latent, embedding, root=True)], []
    for k in range(steps):
        rewards.append(model.reward(latent, actions[:, k], embedding))
        latent = scale_gradient(model.dynamics(latent, actions[:, k], embedding), 0.5)
        latents.append(latent)
        predictions.append(model.predict(latent, embedding))
    with torch.no_grad():
        following = observations[:, 1:].transpose(0, 1).flatten(0, 1)
        encoded = model.represent(following, task_ids.repeat(steps), embedding.repeat(steps, 1))
        targets = model.project(encoded, with_predictor=False)
    predicted = model.project(torch.cat(latents), with_predictor=True)
    values, means, log_stds = (torch.stack(x) for x in zip(*predictions, strict=True))
    return Unroll(
        torch.stack(rewards),
        values,
        means,
        log_stds,
        predicted.view(steps, batch, -1),
        targets.view(steps, batch, -1),
    )


def make_targets(spec: WorldModelSpec, batch: int) -> Targets:
    """Random targets of full segments."""
    steps, actions = UNROLL_STEPS, spec.action_dim
    return Targets(
        reward=torch.rand(steps, batch),
        value=torch.rand(steps + 1, batch) * 10.0,
        policy_mean=torch.randn(steps + 1, batch, actions),
        policy_std=torch.rand(steps + 1, batch, actions),
        action_mask=torch.ones(batch, actions),
        transition_mask=torch.ones(steps, batch),
        policy_mask=torch.ones(steps + 1, batch),
        value_mask=torch.ones(steps + 1, batch),
        alive=torch.ones(steps, batch),
    )


def gradient_step(
    model: WorldModel,
    unroll: Callable[..., Unroll],
    dtype: torch.dtype,
    targets: Targets,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> Callable[[], None]:
    """One update of a copy of the model, as a call."""
    model = copy.deepcopy(model).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)
    weights = LossWeights()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            predictions = unroll(model, *inputs)
        terms = loss_terms(model, predictions, targets, discount=0.99)
        loss = total_loss(terms, weights).mean() / UNROLL_STEPS
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    return step


def step_flops(model: WorldModel, batch: int) -> int:
    """FLOPs of the matrix products: 2 per weight and row forward, 4 backward.

    Rows: K for dynamics, reward, projector and predictor, K + 1 for value and policy, 1 for the
    representation of o_0. The consistency targets are forward only: K rows of representation and
    projector. Biases, norms, embeddings and losses do not count.
    """

    def weights(module: torch.nn.Module) -> int:
        # EnsembleLinear's [V, 1, out] bias is 3-dimensional too, but has one row.
        return sum(p.numel() for p in module.parameters() if p.ndim > 1 and p.shape[-2] > 1)

    steps = UNROLL_STEPS
    trained = steps * sum(
        weights(part)
        for part in (model.dynamics_model, model.reward_model, model.projector, model.predictor)
    )
    trained += (steps + 1) * weights(model.value_policy_model) + weights(model.representation)
    fixed = steps * (weights(model.representation) + weights(model.projector))
    return batch * (6 * trained + 2 * fixed)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="the sizes of ezm_dmc.py")
    parser.add_argument("--batch-size", type=int, help="512, or 66 with --small")
    parser.add_argument("--rounds", type=int, help="7, or 51 with --small")
    parser.add_argument("--core", type=int, help="CPU core to stay on; the last one by default")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser.parse_args()


def main() -> None:
    """Measure and print; the last line holds the numbers that results quote."""
    args = parse_arguments()
    core = pin(args.core)
    torch.manual_seed(0)

    spec = default_suite_model() if args.small else FULL
    batch = args.batch_size or (66 if args.small else 512)
    rounds = args.rounds or (51 if args.small else 7)
    model = WorldModel(spec)
    inputs = (
        torch.randn(batch, UNROLL_STEPS + 1, spec.obs_dim),
        torch.rand(batch, UNROLL_STEPS, spec.action_dim) * 2.0 - 1.0,
        torch.arange(batch) % spec.num_tasks,
    )
    targets = make_targets(spec, batch)
    steps = {
        "reference": gradient_step(model, stepwise_unroll, torch.float32, targets, inputs),
        "batched": gradient_step(model, unroll_world_model, torch.float32, targets, inputs),
        "bf16": gradient_step(model, unroll_world_model, torch.bfloat16, targets, inputs),
    }
    dispatches = {name: count_dispatches(step) for name, step in steps.items()}
    products = {"gemm_fp32": gemm(torch.float32), "gemm_bf16": gemm(torch.bfloat16)}
    seconds = interleaved({**steps, **products}, rounds)

    flops = step_flops(model, batch)
    peaks = {name: gemm_rate(seconds[name]) for name in products}
    report: dict[str, dict[str, Any]] = {
        "step_ms": {name: quartiles(1e3 * seconds[name]) for name in steps},
        "share_of_peak": {
            "reference": quartiles(flops / seconds["reference"] / peaks["gemm_fp32"]),
            "batched": quartiles(flops / seconds["batched"] / peaks["gemm_fp32"]),
            "bf16": quartiles(flops / seconds["bf16"] / peaks["gemm_bf16"]),
        },
        "reference_by_batched": quartiles(seconds["reference"] / seconds["batched"]),
        "fp32_by_bf16": quartiles(seconds["batched"] / seconds["bf16"]),
    }
    print(
        f"D={spec.obs_dim} A={spec.action_dim} H={spec.latent_dim} B={batch} K={UNROLL_STEPS}, "
        f"{flops / 1e9:.2f} GFLOP a step, 1 thread on core {core}; CPU time, median (quartiles) "
        f"of {rounds} interleaved rounds"
    )
    for group, rows in report.items():
        for name, row in {"": rows}.items() if "median" in rows else rows.items():
            label = f"{group} {name}".strip()
            print(f"{label:28} {row['median']:10.3f}  ({row['q25']:.3f} .. {row['q75']:.3f})")
    for name, peak in peaks.items():
        print(f"{name:28} {peak / 1e9:10.1f} GFLOP/s")
    for name, count in dispatches.items():
        print(f"{'dispatches ' + name:28} {count:10d}")
    if args.json:
        extra = {"flops": flops, "peak_flops_per_s": peaks, "dispatches": dispatches}
        args.json.write_text(json.dumps({**report, **extra}, indent=2) + "\n")
    print(
        f"learner_peak={report['share_of_peak']['batched']['median']:.2f} "
        f"learner_bf16={report['fp32_by_bf16']['median']:.2f} "
        f"learner_batched={report['reference_by_batched']['median']:.2f} "
        f"dispatches={dispatches['batched']}"
    )


if __name__ == "__main__":
    main()
