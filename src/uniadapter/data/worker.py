"""Set-up of DataLoader workers: one thread, and signals handled by the main process only.

Ctrl-C, schedulers and container managers signal all processes of a run at once. The main process then finishes its step
and saves a checkpoint, for which the workers must stay alive.
"""

from __future__ import annotations

import os
import signal
import threading

import torch


def init_worker(worker: int) -> None:
    """Set up a worker process, as `DataLoader(worker_init_fn=…)`.

    SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are ignored. SIGTERM is ignored unless it comes from the parent, since torch
    sends it to workers that do not end otherwise. If the parent dies, torch's watchdog ends the worker.

    Args:
        worker: number of the worker, unused.
    """
    torch.set_num_threads(1)
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parents_sigterm, args=(os.getppid(),), daemon=True).start()


def _exit_on_parents_sigterm(parent: int) -> None:
    """Wait for a SIGTERM from the parent, and exit immediately, even while a video is decoded."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
