"""Keep freed memory in the process: on Linux, returning it costs page faults in every step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's mallopt parameters


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to give freed memory back to the system.

    Activations of the same sizes are allocated in every step. By default each large one is mapped afresh and touched
    page by page; where faults are slow (virtual machines) that made steps up to four times as slow. Called by the
    commands, never on import.

    Returns:
        Whether it could be set: False anywhere but on glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_TOP_PAD, 64 << 20))
