"""Whether a task is learned faster by an agent that knows two like it; in two stages.

    python benchmarks/warm_start.py --cores 2 [--out DIR] [--cpu-seconds 1800]

1. `before`: walker-stand and walker-walk from nothing, one agent per seed.
2. `after`: stand, walk and run, "warm" from the agent of the same seed and from "nothing", with
   equal budgets. What stage 1 has cost is in its own table, and not in this one.

Run the same command again after anything that has ended it, as with `study.py`, which makes the
runs. Tables and curves are in `before/` and `after/` of the folder of results.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from study import all_runs, machine_name, run_study, say
from study_file import Study, check_settings
from study_run import Run

from rllib_ezm.report import require_extra
from rllib_ezm.utils.errors import UserError

BASE = Path(__file__).resolve().parents[1] / "tuned_examples" / "ezm_dmc.py"
SEEDS = (0, 1, 2)
KNOWN = ("dmc:walker-stand", "dmc:walker-walk")
ALL = (*KNOWN, "dmc:walker-run")

BEFORE = Study(base=str(BASE), tasks=KNOWN, variants={"before": ()}, seeds=SEEDS, cpu_seconds=1800)
AFTER = Study(
    base=str(BASE),
    tasks=ALL,
    variants={"nothing": (), "warm": ("training.num_random_steps=0",)},
    seeds=SEEDS,
    cpu_seconds=1800,
)
"""The checkpoint of "warm" is that of its seed, see `runs_after`."""


def runs_after(study: Study, agents: list[Run], options: argparse.Namespace) -> list[Run]:
    """The runs of stage 2, each "warm" one with the agent of its seed.

    Raises:
        UserError: A run of stage 1 has no whole checkpoint.
    """
    checkpoints = {}
    for agent in agents:
        checkpoints[agent.seed] = agent.newest_checkpoint()
        if checkpoints[agent.seed] is None:
            raise UserError(f"{agent.name} has no whole checkpoint, see {agent.log}")
    runs = all_runs(study, options)
    for run in runs:
        if run.variant == "warm":
            start = f"warm_start.checkpoint={str(checkpoints[run.seed])!r}"
            settings = (start, 'warm_start.new_task_embedding="nearest"', *study.variants["warm"])
            run.study = replace(study, variants={**study.variants, "warm": settings})
            check_settings(options.base, run.study, ["warm"])
    return runs


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=1, help="runs at once (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("~/ray_results/studies/warm_start"))
    parser.add_argument("--cpu-seconds", type=float, default=1800.0, help="budget of a run")
    parser.add_argument("--progress", type=float, default=60.0, help="seconds between its lines")
    parser.add_argument("--machine", default=machine_name(), help="its name in the tables")
    return parser.parse_args()


def options_of(stage: str, study: Study, given: argparse.Namespace) -> argparse.Namespace:
    """The options of `study.py` for one stage, whose folder is made."""
    out = given.out.expanduser().resolve() / stage
    out.mkdir(parents=True, exist_ok=True)
    tasks = check_settings(BASE, study, list(study.variants))
    return argparse.Namespace(
        file=Path(f"warm_start_{stage}.py"),
        base=BASE,
        out=out,
        tasks=tasks,
        only=None,
        retry_failed=False,
        **{name: getattr(given, name) for name in ("cores", "progress", "machine")},
    )


def main() -> int:
    """Both stages; returns the exit code of the one that did not end well, or 0."""
    given = parse_arguments()
    require_extra()
    before, after = (replace(s, cpu_seconds=given.cpu_seconds) for s in (BEFORE, AFTER))
    say("Stage 1: the agents that know two tasks.")
    options = options_of("before", before, given)
    agents = all_runs(before, options)
    if code := run_study(before, agents, options):
        return code
    say("Stage 2: a third task.")
    options = options_of("after", after, given)
    return run_study(after, runs_after(after, agents, options), options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"warm_start.py: error: {error}")
