"""The machine that a figure was measured on, the versions that ran there, and how much memory was in use."""

from __future__ import annotations

import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

_PACKAGES = ("uniadapter", "torch", "transformers", "peft", "accelerate", "safetensors", "numpy")
_PERIOD = 0.1  # seconds between two looks at the memory


def processor() -> str:
    """Its name, as far as the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of the packages that figures depend on, and the commit of this one where it runs from its repository."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError):
        found["commit"] = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return found


@dataclass
class MemoryUse:
    """Bytes in use over a time: of the GPU where there is one, else of the process.

    Args:
        samples: one every tenth of a second.
    """

    samples: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, int]:
        """Average, largest and 99th percentile, as PEFT's comparison has them; empty without a sample."""
        if not self.samples:
            return {}
        ordered = sorted(self.samples)
        return {
            "accelerator_memory_reserved_avg": round(sum(ordered) / len(ordered)),
            "accelerator_memory_max": ordered[-1],
            "accelerator_memory_reserved_99th": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        }


def bytes_in_use() -> int | None:
    """Of the GPU, or of this process; None where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.memory_reserved()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched_memory() -> Iterator[MemoryUse]:
    """Within the block, memory is looked at ten times a second."""
    use, done = MemoryUse(), threading.Event()

    def watch() -> None:
        while True:
            now = bytes_in_use()
            if now is None:
                return
            use.samples.append(now)
            if done.wait(_PERIOD):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield use
    finally:
        done.set()
        thread.join()
