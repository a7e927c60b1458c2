"""How many env runners, reanalyze workers and GPUs keep a learner busy: measured stages, a model.

Measured here, on one pinned core: CPU seconds of acting and simulation per env step, of the
targets of a batch, of a gradient step, of sampling a batch; bytes of a batch with targets and of
the weights that env runners get. Counted: operations of the networks and operator dispatches.

Modeled: a device takes `max(operations / rate, dispatches * launch)` for a stage. Rate and launch
time are assumptions that you give, or what `benchmarks/gpu.py` has measured of a card; the times of
the stages are modeled in both cases. Stages overlap perfectly, the network between machines,
gradient averaging and Ray cost nothing.

    python benchmarks/scaling.py tuned_examples/ezm_hard.py --tflops 300 --launch-us 5 --gpus 1 8 32
    python benchmarks/scaling.py tuned_examples/ezm_hard.py --gpu-json gpu.json --gpus 1 8 32
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from learner import UNROLL_STEPS, gradient_step, make_targets
from sizes import model_of
from timing import count_dispatches, interleaved, pin
from torch.utils.flop_counter import FlopCounterMode
from train_step import TD_STEPS
from whole_update import random_batch

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm.batches import to_chunk
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner
from rllib_ezm.cli.gpu_figures import GpuFigures
from rllib_ezm.models import WorldModel
from rllib_ezm.models.precision import has_native_bfloat16
from rllib_ezm.models.unroll import unroll_world_model
from rllib_ezm.replay import MultiTaskReplayBuffer
from rllib_ezm.search.gumbel_planner import GumbelPlanner
from rllib_ezm.search.settings import search_settings
from rllib_ezm.update.reanalyzer import Reanalyzer
from rllib_ezm.update.settings import TrainingSettings
from rllib_ezm.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage's share of an update.

    Attributes:
        cpu_seconds: On one core, measured.
        flops: Of its matrix products, counted.
        dispatches: Operators, counted.
    """

    cpu_seconds: float
    flops: int
    dispatches: int

    def seconds(self, flops_per_second: float, launch_seconds: float) -> float:
        """On a device, modeled."""
        return max(self.flops / flops_per_second, self.dispatches * launch_seconds)


def measure(call: Callable[[], object], rounds: int) -> Stage:
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    dispatches = count_dispatches(call)
    seconds = interleaved({"stage": call}, rounds)["stage"]
    return Stage(float(np.median(seconds)), counter.get_total_flops(), dispatches)


def measure_network_stages(config: EZMConfig, rounds: int) -> dict[str, Stage]:
    """Targets of a batch (full reanalyze, bf16 where there is) and its gradient step (fp32)."""
    spec, size = model_of(config), config.total_train_batch_size
    settings = search_settings(config.model_config["search"])
    model = WorldModel(spec)
    batch = random_batch(spec, size, TrainingSettings(), torch.device("cpu"))
    precision = "bfloat16" if has_native_bfloat16("cpu") else "float32"
    planner = GumbelPlanner(
        copy.deepcopy(model),
        torch.ones(spec.num_tasks, spec.action_dim),
        precision=precision,
        chunk_size=size * (config.unroll_steps + 1),  # at once, as a GPU does
    )
    reanalyze = Reanalyzer(
        planner,
        settings,
        unroll_steps=config.unroll_steps,
        td_steps=config.td_steps,
        discount=config.gamma,
    )
    candidates = settings.num_candidates if config.policy_loss == "distribution" else 0
    targets = make_targets(spec, size, num_candidates=candidates)
    steps = config.unroll_steps
    inputs = (batch["obs"][:, : steps + 1], batch["actions"][:, :steps], batch["task_ids"])
    update = gradient_step(model, unroll_world_model, torch.float32, targets, inputs)
    return {
        "reanalyze": measure(lambda: reanalyze(batch), rounds),
        "update": measure(update, rounds),
    }


def measure_collection(config: EZMConfig, rounds: int) -> tuple[dict[str, float], int, int]:
    """CPU seconds per env step with search, without, and per batch drawn; bytes.

    Returns:
        The seconds, the bytes of a batch with its targets, those of the weights of a transfer.
    """
    config = config.copy(copy_frozen=False).training(num_random_steps=0)
    runner, at_random = (MultiTaskEnvRunner(config=config) for _ in range(2))
    tasks = config.get_task_set()
    segment = config.unroll_steps + config.td_steps + 1
    buffer = MultiTaskReplayBuffer(
        num_tasks=tasks.num_tasks,
        capacity_per_task=10_000,
        obs_dim=tasks.obs_dim,
        action_dim=tasks.action_dim,
        unroll_steps=config.unroll_steps,
        td_steps=config.td_steps,
    )
    with torch.no_grad():
        for chunk in runner.sample(num_timesteps=4 * segment * runner.num_envs):
            buffer.add(to_chunk(chunk))
        steps = 8 * runner.num_envs
        seconds = interleaved(
            {
                "act": lambda: runner.sample(num_timesteps=steps),
                "simulate": lambda: at_random.sample(num_timesteps=steps, random_actions=True),
                "draw": lambda: buffer.sample(config.total_train_batch_size),
            },
            rounds,
        )
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    medians["act"] /= steps
    medians["simulate"] /= steps
    batch = buffer.sample(config.total_train_batch_size)
    roots, dims = config.total_train_batch_size * (config.unroll_steps + 1), tasks.action_dim
    per_root = 3 + dims  # two values, a variance, an action
    if config.policy_loss == "distribution":
        per_root += config.num_candidates * (dims + 1)
    weights = runner.module.get_state(inference_only=True)
    return (
        medians,
        sum(column.nbytes for column in batch.values()) + 4 * roots * per_root,
        sum(np.asarray(array).nbytes for array in weights.values()),
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What keeps each other busy.

    Attributes:
        updates: Per second.
        learners: Devices that share each batch.
        reanalyze_workers: Devices (or cores) that make targets; 0: the learner's makes them too.
        cores: CPU cores of env runners.
        megabytes: Per second, to the learners (batches with targets) and to the env runners' nodes.
        limit: The slowest stage: "learner", "reanalyze", or "driver", which draws the batches.
    """

    updates: float
    learners: int
    reanalyze_workers: float
    cores: float
    megabytes: float
    limit: str


def plan(
    stage_seconds: dict[str, float],
    learners: int,
    reanalyze_workers: float,
    act_seconds: float,
    config: EZMConfig,
    bytes_of: tuple[int, int],
    cores_per_node: int,
) -> Plan:
    """Env runners for the pace of the slowest of `stage_seconds` (of an update: see `limit`)."""
    limit = max(stage_seconds, key=lambda name: stage_seconds[name])
    updates = 1.0 / stage_seconds[limit]
    cores = updates / config.replay_ratio * act_seconds
    batch, weights = bytes_of
    nodes = math.ceil(cores / cores_per_node)  # those of a node share one copy
    transfers = nodes * updates / config.weight_sync_interval
    megabytes = (batch * updates + weights * transfers) / 1e6
    return Plan(updates, learners, reanalyze_workers, cores, megabytes, limit)


def split(
    num_gpus: int, stages: dict[str, Stage], draw_seconds: float, rate: float, launch: float
) -> tuple[dict[str, float], int, int]:
    """Seconds of the stages on that many GPUs, and the fewest learners and workers that reach them.

    Learners share a batch: each has its part of the operations and all the dispatches. A
    reanalyze worker makes the targets of whole batches.
    """

    def of(learners: int, workers: int) -> dict[str, float]:
        update = stages["update"]
        parts = dataclasses.replace(update, flops=update.flops // learners).seconds(rate, launch)
        targets = stages["reanalyze"].seconds(rate, launch)
        if not workers:
            return {"learner": parts + targets, "driver": draw_seconds}
        return {"learner": parts, "reanalyze": targets / workers, "driver": draw_seconds}

    splits = [(1, 0), *((n, w) for n in range(1, num_gpus) for w in range(1, num_gpus - n + 1))]
    best = min(splits, key=lambda counts: (max(of(*counts).values()), sum(counts)))
    return of(*best), *best


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parents[1] / "tuned_examples" / "ezm_dmc.py"
    parser.add_argument("file", type=Path, nargs="?", default=default)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tflops", type=float, default=300.0, help="assumed rate of a GPU")
    parser.add_argument("--launch-us", type=float, default=5.0, help="assumed time per dispatch")
    parser.add_argument("--gpu-json", type=Path, help="rate and time of a card, by gpu.py")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--cores-per-node", type=int, default=64)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    return parser.parse_args()


def device(args: argparse.Namespace, config: EZMConfig) -> tuple[float, float, str]:
    """FLOP/s, seconds per dispatch, and where they come from."""
    if args.gpu_json is None:
        text = f"assumed {args.tflops:g} TFLOP/s, {args.launch_us:g} us a dispatch"
        return 1e12 * args.tflops, 1e-6 * args.launch_us, f"{text}; no GPU was used"
    try:
        card = GpuFigures(args.gpu_json)
        pace = card.pace(
            config.train_precision, compiled=config.compile != "off", captured=config.capture
        )
        launch = 0.0 if "captured" in pace.part else card.launch_seconds
    except UserError as error:
        raise SystemExit(str(error)) from error
    text = f"{pace.flops_per_second / 1e12:.3g} TFLOP/s, {1e6 * launch:.3g} us a dispatch"
    return pace.flops_per_second, launch, f'{text}: measured on {card.card}, "{pace.part}"'


def main() -> None:
    args = parse_arguments()
    config = runpy.run_path(str(args.file))["config"].copy(copy_frozen=False)
    config.validate()
    if (config.unroll_steps, config.td_steps) != (UNROLL_STEPS, TD_STEPS):
        raise SystemExit(
            f"The segments measured have unroll_steps={UNROLL_STEPS}, td_steps={TD_STEPS}."
        )
    rate, launch, source = device(args, config)
    core = pin()
    torch.manual_seed(0)
    stages = measure_network_stages(config, args.rounds)
    seconds, *bytes_of = measure_collection(config, args.rounds)
    print(f"{args.file.name}: batch {config.total_train_batch_size}, core {core}; measured")
    for name, stage in stages.items():
        print(
            f"  {name:<10}{1e3 * stage.cpu_seconds:12.1f} ms {stage.flops / 1e9:10.1f} GFLOP "
            f"{stage.dispatches:7d} dispatches"
        )
    for name, value in seconds.items():
        print(f"  {name:<10}{1e3 * value:12.3f} ms per {'batch' if name == 'draw' else 'env step'}")
    print(f"  bytes: {bytes_of[0]:,} a batch with targets, {bytes_of[1]:,} a weight transfer")
    rest = (seconds["act"], config, bytes_of, args.cores_per_node)
    pace = stages["update"].cpu_seconds
    plans = {
        "one core, others for targets": plan(
            {"learner": pace}, 1, stages["reanalyze"].cpu_seconds / pace, *rest
        )
    }
    for count in args.gpus:
        name = "1 GPU" if count == 1 else f"{count} GPUs"
        plans[name] = plan(*split(count, stages, seconds["draw"], rate, launch), *rest)
    print(f"modeled ({source})")
    print(
        f"  {'':<30}{'updates/s':>10}{'learners':>10}{'reanalyze':>10}{'cores':>8}{'MB/s':>9}"
        "  limit"
    )
    for name, what in plans.items():
        print(
            f"  {name:<30}{what.updates:10.1f}{what.learners:10d}{what.reanalyze_workers:10.3g}"
            f"{what.cores:8.1f}{what.megabytes:9.1f}  {what.limit}"
        )
    if args.json:
        report = {
            "stages": {name: dataclasses.asdict(stage) for name, stage in stages.items()},
            "seconds": seconds,
            "bytes": bytes_of,
            "device": source,
            "plans": {name: dataclasses.asdict(what) for name, what in plans.items()},
        }
        args.json.write_text(json.dumps(report, indent=1))
    last = list(plans.values())[-1]
    print(
        f"\nupdates={last.updates:.4g} learners={last.learners} "
        f"reanalyze_workers={last.reanalyze_workers} cores={last.cores:.4g} limit={last.limit}"
    )


if __name__ == "__main__":
    main()
