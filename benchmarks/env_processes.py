"""One search for environments in processes, beside a search in each env runner.

Wall-clock env steps per second of the same slots, in Ray actors of one thread each that take turns,
round by round: one env runner that steps its environments itself, one whose environments are in
processes, and several env runners. Beside it CPU milliseconds per env step, of env runners and
processes together, and the step of the vector environment alone, without a search.

    python benchmarks/env_processes.py [--small] [--task dmc:walker-run] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from sizes import default_suite
from timing import quartiles

from rllib_ezm import EZMConfig
from rllib_ezm.algorithm.env_runner import MultiTaskEnvRunner

TICKS = os.sysconf("SC_CLK_TCK")


def make_config(task: str, slots: int, processes: int, *, small: bool) -> EZMConfig:
    config = (
        (default_suite() if small else EZMConfig())
        .tasks([task], action_repeat=1, envs_per_task=slots, num_env_processes=processes)
        .search(inference_precision="auto")
        .training(num_random_steps=0)
        .debugging(seed=0)
    )
    config.validate()
    return config


class Runners:
    """Env runners that share the slots.

    Args:
        config: Of all.
        count: How many.
    """

    def __init__(self, config: EZMConfig, count: int) -> None:
        self.slots = int(config.env_config["envs_per_task"])
        actor = ray.remote(num_cpus=1)(MultiTaskEnvRunner)
        config = config.copy(copy_frozen=False).env_runners(num_env_runners=count)
        self._actors = [
            actor.remote(config=config, worker_index=index + 1, num_workers=count)
            for index in range(count)
        ]

    def sample(self, steps: int) -> int:
        """So many steps of each slot, on all runners at once; returns the env steps."""
        sampled = [
            runner.sample.remote(num_timesteps=steps * slots)
            for runner, slots in zip(self._actors, self._shares(), strict=True)
        ]
        return sum(len(episode) for part in ray.get(sampled) for episode in part)

    def cpu_seconds(self) -> float:
        """Of the runners and their environments' processes so far."""

        def of(runner: Any) -> float:
            return _cpu_seconds([os.getpid(), *getattr(runner.env, "process_ids", [])])

        return float(sum(ray.get([runner.apply.remote(of) for runner in self._actors])))

    def _shares(self) -> list[int]:
        return [len(part) for part in np.array_split(np.arange(self.slots), len(self._actors))]


def _cpu_seconds(processes: list[int]) -> float:
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def measure_collection(
    variants: dict[str, Runners], steps: int, rounds: int
) -> dict[str, dict[str, np.ndarray]]:
    """Env steps per second, and CPU ms per env step, of each variant in each round."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    costs: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):  # the first one warms up
        for name, runners in variants.items():
            before, started = runners.cpu_seconds(), time.perf_counter()
            env_steps = runners.sample(steps)
            seconds = time.perf_counter() - started
            if turn:
                rates[name].append(env_steps / seconds)
                costs[name].append(1e3 * (runners.cpu_seconds() - before) / env_steps)
    return {
        name: {"env_steps_per_second": np.array(rates[name]), "cpu_ms": np.array(costs[name])}
        for name in variants
    }


def measure_steps(configs: dict[str, EZMConfig], steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of a step of the vector environment alone, with random actions."""
    environments = {name: MultiTaskEnvRunner(config=c).env for name, c in configs.items()}

    def run(env: Any) -> None:
        for _ in range(steps):
            env.step(env.action_space.sample())

    calls: dict[str, Callable[[], None]] = {}
    for name, env in environments.items():
        env.reset(seed=0)
        calls[name] = functools.partial(run, env)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - started) / steps)
    for env in environments.values():
        env.close()
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="network and search of ezm_dmc.py")
    parser.add_argument("--task", default="dmc:walker-run")
    parser.add_argument("--slots", type=int, default=14)
    parser.add_argument("--processes", type=int, default=2, help="processes, or env runners")
    parser.add_argument("--steps", type=int, default=20, help="steps per slot and turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write every figure here")
    args = parser.parse_args()
    make = functools.partial(make_config, args.task, args.slots, small=args.small)
    several = args.processes
    names = ("1 env runner", f"1 env runner, {several} processes", f"{several} env runners")
    one, central = make(0), make(several)
    alone = measure_steps({names[0]: one, names[1]: central}, args.steps, args.rounds)
    ray.init(address="local", num_cpus=several + 2, include_dashboard=False, log_to_driver=False)
    found = measure_collection(
        {
            names[0]: Runners(one, 1),
            names[1]: Runners(central, 1),
            names[2]: Runners(one, several),
        },
        args.steps,
        args.rounds,
    )
    ray.shutdown()
    print(f"{args.task}, {args.slots} slots, load {os.getloadavg()[0]:.1f}; medians (quartiles)")
    print(f"{'':32}{'env steps/s':>24}{'CPU ms/env step':>20}{'step alone, ms':>18}")
    for name, figures in found.items():
        rate, cost = (quartiles(figures[key]) for key in ("env_steps_per_second", "cpu_ms"))
        step = f"{np.median(alone[name]):.2f}" if name in alone else ""
        spread = f"{rate['median']:.0f} ({rate['q25']:.0f}-{rate['q75']:.0f})"
        print(f"{name:32}{spread:>24}{cost['median']:20.2f}{step:>18}")
    rates = {name: figures["env_steps_per_second"] for name, figures in found.items()}
    keys = {
        "processes_to_one_runner": float(np.median(rates[names[1]] / rates[names[0]])),
        "processes_to_several_runners": float(np.median(rates[names[1]] / rates[names[2]])),
        "step_alone": float(np.median(alone[names[0]] / alone[names[1]])),
    }
    if args.json:
        report: dict[str, Any] = {
            name: {key: quartiles(values) for key, values in figures.items()}
            for name, figures in found.items()
        }
        report["step_alone_ms"] = {name: quartiles(values) for name, values in alone.items()}
        args.json.write_text(json.dumps({"keys": keys, **report}, indent=1))
    print("\n" + " ".join(f"{key}={value:.4g}" for key, value in keys.items()))


if __name__ == "__main__":
    main()
