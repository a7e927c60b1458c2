"""`python -m rllib_ezm.models`: print the parameter count of every sub-network."""

from __future__ import annotations

import argparse
import dataclasses

from rllib_ezm.models.world_model import WorldModel, WorldModelSpec


def main() -> None:
    """Parse sizes from the command line and print the table, ending in `total N`."""
    parser = argparse.ArgumentParser(prog="python -m rllib_ezm.models", description=__doc__)
    parser.add_argument("--obs-dim", type=int, default=177)
    parser.add_argument("--action-dim", type=int, default=61)
    parser.add_argument("--tasks", type=int, default=14)
    for field in dataclasses.fields(WorldModelSpec):
        if isinstance(field.default, int):
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=int, default=field.default
            )
    options = vars(parser.parse_args())
    counts = WorldModel(WorldModelSpec(num_tasks=options.pop("tasks"), **options))
    table = counts.parameter_counts()
    for name, count in table.items():
        print(f"{name:<16}{count:>12}")
    print(f"total {sum(table.values())}")


if __name__ == "__main__":
    main()
