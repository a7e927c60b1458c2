"""From Tune's result files to tables and figures with bootstrap intervals; no Ray needed.

Data flow: `runs` (files to trials) -> `variants` (trials of one setting) -> `comparison` (variants
on the same tasks) -> `aggregate` (numbers with intervals) -> `tables` and `figures`; `write` puts
it together for `rllib-ezm report` from `blocks`, as Markdown and, by `html`, as one page.
`reference` holds what others published.

Shape legend: R runs (seeds), T tasks, P points of a curve, K thresholds.
"""

from __future__ import annotations

import importlib.util

from rllib_ezm.utils.errors import UserError


def require_extra() -> None:
    """Check that the packages of the extra `report` are there, before any of them is imported.

    Raises:
        UserError: If one is missing.
    """
    missing = [name for name in ("matplotlib", "rliable") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"report needs {' and '.join(missing)}: pip install 'rllib-ezm[report]'")
