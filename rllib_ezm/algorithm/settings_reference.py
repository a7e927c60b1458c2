"""`python -m rllib_ezm.algorithm.settings_reference`: the reference page of all settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rllib_ezm.algorithm.config import EZMConfig
from rllib_ezm.algorithm.rllib_settings import UNREAD, RLlibSettings
from rllib_ezm.algorithm.setters import GROUPS, RENAMED, RENAMED_VALUES
from rllib_ezm.algorithm.setting_names import setter_of
from rllib_ezm.algorithm.warm_start import WarmStartSettings
from rllib_ezm.utils.settings import Row, describe

INTRODUCTION = """\
# Configuration

Every setting of `EZMConfig`, by the method that sets it. Each method takes any of its settings by
name, keeps the others as they are, and returns the config:

```python
from rllib_ezm import EZMConfig

config = (
    EZMConfig()
    .tasks(["dmc:walker-stand", "dmc:walker-walk"], action_repeat=2)
    .training(replay_ratio=0.5, train_batch_size_per_learner=128)
    .search(num_simulations=16)
)
```

Each value may also be a search space of Ray Tune. `config.validate()`, which RLlib calls before it
builds the algorithm, refuses what is out of range, and names the setting, its value and what is
allowed. `rllib-ezm inspect` lists the settings of a checkpoint that differ from the defaults.

The tasks are chosen with `.tasks()`. The other methods of RLlib's `AlgorithmConfig` can be used as
well, such as `.env_runners()`, `.learners()`, `.evaluation()` and `.debugging()`. A name that is no
setting is refused at once, and a setting of RLlib that EZ-M does not read before the run; both say
what is set instead.
"""

WARM_START = """\
Its argument `freeze` sets `frozen_networks` of `.training()`. See
[Add a task to a trained agent](../how-to/add-a-task.md).
"""


def page() -> str:
    """The page in Markdown: an introduction, and a table for each group of settings."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    for setter, group in GROUPS.items():
        yield f"## `.{setter}()`\n\n{(group.__doc__ or '').partition(chr(10))[0]}\n"
        yield from _table(group)
    yield f"## `.warm_start()`\n\n{(WarmStartSettings.__doc__ or '').partition(chr(10))[0]}"
    yield WARM_START
    yield from _table(WarmStartSettings)
    setters = setter_of(EZMConfig)
    yield "## Settings of RLlib\n"
    yield "Those that EZ-M reads. Callbacks, connectors and your own classes are set as in RLlib.\n"
    yield "| setting | set by | type | default | range | meaning |\n" + "| --- " * 6 + "|"
    for row in describe(RLlibSettings):
        name, *rest = _cells(row)
        yield _line([name, f"`.{setters[row.name]}()`", *rest])
    yield "\nThose that it does not read; another value than RLlib's default is refused.\n"
    yield "| setting | what there is instead |\n| --- | --- |"
    yield from (_line([f"`{name}`", instead]) for name, instead in UNREAD.items())
    yield "\n## Renamed settings\n"
    yield "The old names work and warn (`DeprecationWarning`) until the next release.\n"
    yield "| old name | name |\n| --- | --- |"
    yield from (f"| `{old}` | `{new}` |" for old, new in RENAMED.items())
    for name, values in RENAMED_VALUES.items():
        yield from (f"| `{name}={old!r}` | `{name}={new!r}` |" for old, new in values.items())
    yield ""


def _table(group: type[Any]) -> Iterator[str]:
    yield "| setting | type | default | range | meaning |\n| --- | --- | --- | --- | --- |"
    yield from (_line(_cells(row)) for row in describe(group))
    yield ""


def _cells(row: Row) -> list[str]:
    return [f"`{row.name}`", f"`{row.type}`", f"`{row.default}`", row.range, row.sentence]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(page(), end="")
