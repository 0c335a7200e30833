"""Two and three processes take the step of one: losses, gradients, weights after SGD; whole batches and parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from one_batch import CASES, Step, assert_steps_close, in_processes, one_step, save_on_first, share

# Rows of each process; what takes parts, and how many at once.
SHARES = {2: ((4, 3), 0, (5, 2), 2), 3: ((3, 2, 2), 0, (1, 4, 2), 2)}
EMPTY = {2: (7, 0), 3: (0, 4, 3)}
WITHOUT_ROWS = ("contrast, queue", "contrast, softmax", "contrast, sigmoid", "matching")


def steps(folder: str, world: int) -> None:
    """Of every case, in this process."""
    even, whole, uneven, part = SHARES[world]
    found = {}
    for name, case in CASES.items():
        found[name, "whole"] = one_step(case, share(even), whole)
        found[name, "parts"] = one_step(case, share(uneven), part)
    for name in WITHOUT_ROWS:
        found[name, "none"] = one_step(CASES[name], share(EMPTY[world]), part)
    save_on_first(found, Path(folder) / "found.pt")


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_take_the_step_of_one(tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    in_processes(world, steps, str(tmp_path), world)
    wanted = {name: one_step(case) for name, case in CASES.items()}
    found: dict[tuple[str, str], Step] = torch.load(tmp_path / "found.pt", weights_only=False)
    assert len(found) == 2 * len(CASES) + len(WITHOUT_ROWS)
    for (name, how), step in found.items():
        print(name, how)  # noqa: T201 - which one it was
        # the text decoder's loss is summed in float32
        assert_steps_close(step, wanted[name], 1e-9 if CASES[name].task == "retrieval" else 1e-5)
