from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rllib_ezm.utils import allocator
from rllib_ezm.utils.allocator import keep_freed_memory

COUNT_FAULTS = """
import resource, sys
import numpy as np
from rllib_ezm.utils.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for i in range(6):
    if i == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2**17) for _ in range(200)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_arrays_are_reused_without_page_faults():
    """Five times 200 arrays of 1 MiB, 256 pages each, freed together."""

    def faults(mode):
        command = [sys.executable, "-c", COUNT_FAULTS, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("keep") < 5_000
    assert faults("default") > 50_000


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert keep_freed_memory() is False
