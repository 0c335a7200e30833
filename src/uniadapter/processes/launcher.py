"""What a launcher, such as `torchrun`, says in the environment of the processes that it has started."""

from __future__ import annotations

import os

# By these torch and Accelerate tell that processes belong together.
_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> tuple[int, int]:
    """Rank of this process, and how many were started together; (0, 1) without a launcher."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def part_from_others() -> bool:
    """Let this process work as if it had been started alone, on a GPU of its own; called before torch uses any.

    Returns:
        Whether it is the first of those that were started together.
    """
    rank, count = launched()
    if count == 1:
        return True
    place = int(os.environ.get("LOCAL_RANK", rank))
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[place % len(visible)] if visible else str(place)
    for name in _GROUP:
        os.environ.pop(name, None)
    return rank == 0
