"""A process that loads data, from within: one thread of arithmetic, and no end but by its parent.

Who ends a run often signals all of its processes at once: a terminal by Ctrl-C, a scheduler, a container's or a
service's manager, `kill -- -GROUP`. The run then stops by itself once all is saved, for which it still needs the data
that its loading processes were asked for.
"""

from __future__ import annotations

import os
import signal
import threading

import torch


def begin(worker: int) -> None:
    """Set up the loading process that this is called in (`DataLoader(worker_init_fn=…)`).

    Ctrl-C and the end of a terminal mean the parent. So does SIGTERM, unless it comes from the parent itself: torch
    ends with it what does not end when told so. A process whose parent is gone ends by torch's own watch.
    """
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Wait for a SIGTERM of the parent's, and end at once, even in the middle of decoding."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
