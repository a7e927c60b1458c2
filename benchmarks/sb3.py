"""SAC of Stable-Baselines3 and CrossQ of sb3-contrib on our tasks: one task, one seed, one thread.

    pip install -e ".[sb3]"
    python benchmarks/sb3.py dmc:walker-walk --algorithm crossq --seed 0 --cpu-seconds 1800

The settings are the packages' defaults, the environment is ours with its wrappers, and an
evaluation plays full episodes with fixed seeds, every `--every` decisions and at the end. The
curve has the columns of study.py's. Run the same command again after an interruption: training goes
on from the last evaluation, where network, optimizer and replay buffer are saved.

CPU seconds are those of the process over all of its lives, starting up and work that was lost
included. Evaluations are not: they have more episodes than those that study.py counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from curve_file import Row, read_rows, write_rows

from rllib_ezm.tasks.multitask import task_set
from rllib_ezm.tasks.spec import TaskSpec, resolve_task
from rllib_ezm.utils.errors import UserError

if TYPE_CHECKING:
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

PACKAGES = {"stable_baselines3": "stable-baselines3", "sb3_contrib": "sb3-contrib"}
"""Module -> package."""

CURVE_FILE, STATE_FILE, SAVE = "curve.csv", "state.json", "save"
SECONDS_BETWEEN_NOTES = 1.0
"""After which the CPU seconds are written down."""


def require_sb3() -> None:
    """Check that the packages are there.

    Raises:
        UserError: If one is missing.
    """
    missing = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        raise UserError(f'sb3.py needs {" and ".join(missing)}: pip install -e ".[sb3]"')


class PlainObservation(gym.ObservationWrapper[Any, Any, Any]):
    """The vector of one of our padded tasks, without its id and mask: there is one task only."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation_space = env.observation_space["obs"]  # type: ignore[index]

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        """[D]."""
        return np.asarray(observation["obs"])


def make_env(spec: TaskSpec) -> gym.Env[Any, Any]:
    """Our environment of a task, with the action repeat and all wrappers of training."""
    return PlainObservation(task_set([spec]).make(0))


@dataclass
class Progress:
    """What a run has used, over all of its lives.

    Attributes:
        decisions: Decisions at the last save.
        cpu_s: CPU seconds up to now.
        wall_s: Wall-clock seconds up to now.
        lives: How often it was started.
    """

    decisions: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    lives: int = 0


class Run:
    """One algorithm on one task with one seed, in a folder of its own.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.spec = resolve_task(options.task, action_repeat=options.action_repeat)
        self.variant = f"sb3_{options.algorithm}"
        name = f"{self.variant}_{self.spec.name.replace(':', '-')}_seed{options.seed}"
        self.folder = options.out / name
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / STATE_FILE
        self.progress = Progress(**json.loads(state.read_text())) if state.is_file() else Progress()
        self.progress.lives += 1
        self._cpu_before, self._wall_before = self.progress.cpu_s, self.progress.wall_s
        self._started, self._noted, self._not_counted = time.monotonic(), 0.0, 0.0
        self.ended_by = 0
        (self._env, self._evaluation_env) = (make_env(self.spec) for _ in range(2))
        if self._previous.is_dir() and not self._saved.is_dir():  # killed between two renames
            self._previous.rename(self._saved)
        self.model = self._load() if self._saved.is_dir() else self._new()

    @property
    def _saved(self) -> Path:
        return self.folder / SAVE

    @property
    def _previous(self) -> Path:
        return self.folder / f"{SAVE}.previous"

    @property
    def _kind(self) -> type[OffPolicyAlgorithm]:
        from sb3_contrib import CrossQ
        from stable_baselines3 import SAC

        kinds: dict[str, type[OffPolicyAlgorithm]] = {"sac": SAC, "crossq": CrossQ}
        return kinds[self._options.algorithm]

    def _new(self) -> OffPolicyAlgorithm:
        # A buffer that is never full is as good as the default one of a million.
        size = min(self._options.decisions, 1_000_000)
        return self._kind(
            "MlpPolicy", self._env, seed=self._options.seed, buffer_size=size, device="cpu"
        )

    def _load(self) -> OffPolicyAlgorithm:
        model = self._kind.load(self._saved / "model.zip", env=self._env, device="cpu")
        model.load_replay_buffer(self._saved / "replay.pkl")
        # The state of the generators is not saved: draw other numbers than in the lives before.
        model.set_random_seed(self._options.seed + 1_000_003 * self.progress.lives)
        return model

    def note(self) -> None:
        """Write down what was used."""
        progress, self._noted = self.progress, time.monotonic()
        progress.cpu_s = self._cpu_before + time.process_time() - self._not_counted
        progress.wall_s = self._wall_before + time.monotonic() - self._started
        partial = self.folder / f"{STATE_FILE}.partial"
        partial.write_text(json.dumps(asdict(progress)) + "\n")
        os.replace(partial, self.folder / STATE_FILE)

    @property
    def _spent(self) -> bool:
        budget = self._options.cpu_seconds
        return budget is not None and self.progress.cpu_s >= budget

    @property
    def over(self) -> bool:
        """Whether a budget is used up."""
        return self._spent or self.model.num_timesteps >= self._options.decisions

    def may_go_on(self) -> bool:
        """After a decision: whether to make another one."""
        if time.monotonic() - self._noted >= SECONDS_BETWEEN_NOTES:
            self.note()
        return not self.ended_by and not self._spent

    def train(self) -> None:
        """To the end of the budget, or until a signal comes."""
        from stable_baselines3.common.callbacks import BaseCallback

        run = self

        class Watch(BaseCallback):
            def _on_step(self) -> bool:
                return run.may_go_on()

        self.note()
        while not self.over and not self.ended_by:
            done = self.model.num_timesteps
            every = self._options.every
            chunk = min((done // every + 1) * every, self._options.decisions) - done
            self.model.learn(chunk, callback=Watch(), reset_num_timesteps=False)
            self.note()
            self.save(self.evaluate())
        if not self._saved.is_dir():  # the budget ended before the first decision
            self.save(self.evaluate())

    def evaluate(self) -> Row:
        """Full episodes with fixed seeds, without exploration; a row of the curve."""
        started, env = time.process_time(), self._evaluation_env
        returns = []
        for episode in range(self._options.episodes):
            observation, _ = env.reset(seed=self._options.evaluation_seed + episode)
            total, over = 0.0, False
            while not over:
                action, _ = self.model.predict(observation, deterministic=True)
                observation, reward, terminated, truncated, _ = env.step(action)
                total += float(reward)
                over = terminated or truncated
            returns.append(total)
        self._not_counted += time.process_time() - started
        mean = float(np.mean(returns))
        return {
            "variant": self.variant,
            "task": self.spec.name,
            "seed": self._options.seed,
            "decisions": self.model.num_timesteps,
            "env_steps": self.model.num_timesteps * self.spec.action_repeat,
            "updates": self.model._n_updates,
            "cpu_s": round(self.progress.cpu_s, 1),
            "wall_s": round(self.progress.wall_s, 1),
            "return": round(mean, 3),
            "score": round(self.spec.normalized_score(mean), 5),
            "episodes": len(returns),
        }

    def save(self, row: Row) -> None:
        """Keep the run as it is: a whole new save replaces the last one."""
        partial = self.folder / f"{SAVE}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        self.model.save(partial / "model.zip")
        self.model.save_replay_buffer(partial / "replay.pkl")
        earlier = read_rows(self._saved / CURVE_FILE)
        write_rows(partial / CURVE_FILE, [*earlier, row])
        shutil.rmtree(self._previous, ignore_errors=True)
        if self._saved.is_dir():
            self._saved.rename(self._previous)
        partial.rename(self._saved)
        shutil.rmtree(self._previous, ignore_errors=True)
        shutil.copyfile(self._saved / CURVE_FILE, self.folder / CURVE_FILE)
        self.progress.decisions = self.model.num_timesteps
        self.note()
        print(
            f"{row['variant']} {row['task']} seed {row['seed']}: {row['decisions']:,} decisions, "
            f"{row['cpu_s']:,.0f} CPU s, {row['wall_s']:,.0f} s, return {row['return']:.1f}",
            flush=True,
        )

    def stop(self, signum: int, frame: Any) -> None:
        """On a signal: end after the present decision, evaluate and save."""
        self.ended_by = signum


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="e.g. dmc:walker-walk")
    parser.add_argument("--algorithm", choices=("sac", "crossq"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu-seconds", type=float, help="budget; default: none")
    parser.add_argument("--decisions", type=int, default=100_000, help="budget (default: 100000)")
    parser.add_argument("--every", type=int, default=5000, help="decisions between evaluations")
    parser.add_argument("--episodes", type=int, default=10, help="of an evaluation")
    parser.add_argument("--evaluation-seed", type=int, default=12345, help="of its first episode")
    parser.add_argument("--action-repeat", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("~/ray_results/sb3"))
    options = parser.parse_args(arguments)
    for name in ("decisions", "every", "episodes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    options.out = options.out.expanduser().resolve()
    return options


def main() -> int:
    """Train; returns the exit code, 128 + a signal's number after one."""
    options = parse_arguments()
    require_sb3()
    import torch

    torch.set_num_threads(1)
    run = Run(options)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, run.stop)
    run.train()
    print(f"Curve: {run.folder / CURVE_FILE}", flush=True)
    return 128 + run.ended_by if run.ended_by else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"sb3.py: error: {error}")
