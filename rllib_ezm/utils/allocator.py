"""Memory allocator setting for the many short-lived arrays of a CPU learner."""

from __future__ import annotations

import ctypes
import platform

# Parameters of glibc's mallopt(3) and the largest values it takes.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_LARGEST_INT = 2**31 - 1
_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays, not return it to the kernel.

    By default glibc returns arrays above 128 KiB at once, and every new one costs page faults:
    a tenth to a quarter of a small search's time. The process stays as large as it once was.

    Returns:
        Whether the allocator took the setting; False where it is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = (
        (_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD),
        (_M_TRIM_THRESHOLD, _LARGEST_INT),
        (_M_TOP_PAD, _PAD),
    )
    return all(libc.mallopt(parameter, value) for parameter, value in settings)
