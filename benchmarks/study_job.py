"""A job: one run brought to a fraction of its budget, and evaluated there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from study_run import MOST_KILLS, Life, Run, write_json

from rllib_ezm.cli import INTERRUPTED


class Job:
    """One run on its way to a fraction of its budget; `poll` it every second.

    Args:
        run: The run.
        fraction: Of the budget, up to 1.
    """

    def __init__(self, run: Run, fraction: float) -> None:
        self.run, self.fraction = run, fraction
        self.life: Life | None = None
        self._evaluation = run.folder / f"evaluation_{fraction:g}.json"

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        state = self.run.state
        return bool(state.failure) or (self.life is None and state.evaluated >= self.fraction)

    @property
    def _limit(self) -> float:
        budget = self.run.study.cpu_seconds
        return float("inf") if budget is None else self.fraction * budget

    def poll(self, *, ending: bool) -> None:
        """Go on a step.

        Args:
            ending: Whether the study ends: nothing new is started, what runs is saved.
        """
        if self.life is None:
            if not ending:
                self._start()
            return
        self.life.read()
        code = self.life.process.poll()
        training = self.run.state.trained < self.fraction
        if code is None:
            if ending or (training and self.life.cpu_s >= self._limit):
                self.life.stop()
            return
        if training:
            self._end_of_training(code, self.life)
        else:
            self._end_of_evaluation(code, self.life, ending)
        self.life = None
        self.run.keep_state()

    def _start(self) -> None:
        state = self.run.state
        if state.trained >= self.fraction:
            self.life = self._evaluate()
        elif self.run.used[0] >= self._limit:  # reached in a life that outlived its study
            self._reached()
            self.run.keep_state()
        else:
            state.lives += 1
            state.commits = tuple(dict.fromkeys([*state.commits, commit_of(self.run.base)]))
            self.run.keep_state()
            self.life = Life(self.run, self.run.train_arguments(self.fraction), counts=True)

    def _evaluate(self) -> Life | None:
        checkpoint = self.run.newest_checkpoint()
        if checkpoint is None:
            self.run.state.failure = "no whole checkpoint to evaluate"
            self.run.keep_state()
            return None
        evaluation = self.run.study.evaluation
        options = ["--episodes", str(evaluation.episodes), "--seed", str(evaluation.seed)]
        target = ["--json", str(self._partial)]
        return Life(self.run, ["evaluate", str(checkpoint), *options, *target], counts=False)

    @property
    def _partial(self) -> Path:
        return self.run.folder / "evaluation.partial.json"

    def _end_of_training(self, code: int, life: Life) -> None:
        state = self.run.state
        reached = life.cpu_s >= self._limit
        by_signal = code < 0 or code in INTERRUPTED
        if code == 0 or (code in INTERRUPTED and reached):
            self._reached()
        elif by_signal and (life.was_told_to_stop or state.kills < MOST_KILLS):
            state.kills += not life.was_told_to_stop  # the next life goes on
        else:
            cause = f"ended by signals {state.kills + 1} times, last: " if by_signal else ""
            state.failure = f"{cause}{life.last_line()}"

    def _reached(self) -> None:
        state = self.run.state
        state.kills = 0
        if self.run.newest_checkpoint() is None:
            state.failure = "the budget ended before the first checkpoint"
        else:
            state.trained = self.fraction

    def _end_of_evaluation(self, code: int, life: Life, ending: bool) -> None:
        if code != 0:
            if not ending:
                self.run.state.failure = f"its evaluation failed: {life.last_line()}"
            return
        report = json.loads(self._partial.read_text())
        cpu_s, wall_s = self.run.used
        tasks = {
            task["task"]: {
                "return": task["return_mean"],
                "score": task["normalized_score_mean"],
                "returns": task["returns"],
            }
            for task in report["tasks"]
        }
        write_json(
            self._evaluation,
            {
                "fraction": self.fraction,
                "cpu_s": cpu_s,
                "wall_s": wall_s,
                "episodes": self.run.study.evaluation.episodes,
                "score": report["normalized_score_mean"],
                **self.run.position(),
                "tasks": tasks,
            },
        )
        self._partial.unlink()
        self.run.state.evaluated = self.fraction


def commit_of(file: Path) -> str:
    """The commit that a file's repository is at, with a + where files differ from it."""
    describe = ["git", "describe", "--always", "--dirty=+", "--exclude", "*"]
    done = subprocess.run(
        describe, cwd=file.parent, capture_output=True, text=True, check=False, env={**os.environ}
    )
    return done.stdout.strip() or "unknown"
