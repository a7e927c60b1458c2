"""Every private name of Ray and RLlib that this package touches, and what breaks without it.

Each function or class says why there is no public way. When a release of Ray changes, this module
and its tests are the place to look.
"""

from __future__ import annotations

import ray


def is_own_cluster() -> bool:
    """Whether this process started its Ray, which then has no more resources than it has now.

    Private: `ray._private.worker._global_node`; no public call tells who started Ray. Without it, a
    run that asks for too much would wait for ever instead of raising an error.
    """
    node = ray._private.worker._global_node
    return node is not None and bool(node.is_head())
