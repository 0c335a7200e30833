"""DataLoader workers: one thread, signals handled by the main process only, and an end for those that hang.

Ctrl-C, schedulers and container managers signal all processes of a run at once. The main process then finishes its step
and saves a checkpoint, for which the workers must stay alive.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.utils.data

from uniadapter.errors import DataError


class HungWorkers(DataError):
    """No batch came from the workers within `data.timeout`.

    Args:
        seconds: that were waited for it.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"no batch came from the processes that load data within {seconds:g} s (data.timeout): a disk or a network "
            "share hangs, or a file takes that long to decode; look there, or set data.timeout higher",
            "hung worker",
        )


class Watchdog:
    """Kills the workers of a DataLoader's iterator if waiting for one of its batches takes too long.

    Torch's own `timeout` is no limit: it does not end the wait for a tensor that a worker has announced and, stopped or
    hung since, does not hand over.

    Args:
        seconds: most that may be waited; 0 means forever.

    Attributes:
        fired: whether the workers were killed.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.fired = seconds, False
        self._lock = threading.Lock()
        self._iterator: Any = None

    @contextmanager
    def watching(self, iterator: Any) -> Iterator[None]:
        """For a block that waits for a batch."""
        if not self.seconds or not getattr(iterator, "_workers", ()):
            yield
            return
        self._iterator = iterator  # not the timer's, whose thread may outlive the block and would end the workers
        timer = threading.Timer(self.seconds, self._kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._iterator = None

    def _kill(self) -> None:
        with self._lock:
            if self._iterator is not None:
                self.fired = True
                _stop_watching(self._iterator)
                for one in self._iterator._workers:
                    one.kill()


def end_workers(iterator: Any) -> None:
    """End the workers of a DataLoader's iterator, those that hang too, within some 10 seconds each.

    Args:
        iterator: torch's, or None; it cannot be used afterwards.
    """
    workers = list(getattr(iterator, "_workers", ()))
    if workers:
        with suppress(AttributeError):  # of one whose workers were being started
            iterator._shutdown_workers()
    for one in workers:
        if one.is_alive():  # stopped, or in a system call: the SIGTERM that torch has sent does not reach it
            one.kill()
            one.join(5)


def begun_iterator(error: Exception) -> Any:
    """The iterator of a DataLoader in whose construction an error was raised, a worker's early end above all; or None.

    Nothing else refers to it, and its workers would outlive it.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get("self")
        if hasattr(found, "_shutdown_workers"):
            return found
    return None


def _stop_watching(iterator: Any) -> None:
    """Let torch's handler of SIGCHLD, which raises wherever the main process stands, forget the workers."""
    if iterator._worker_pids_set:
        torch.utils.data._utils.signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False


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
