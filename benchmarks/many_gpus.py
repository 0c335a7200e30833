"""What 1, 8 and 64 GPUs would bring, on paper: measured rates and message sizes, divided by assumed speeds of hardware.

    python benchmarks/many_gpus.py

Nothing here has run on a GPU. Work of a sample is that of a training step at BLIP-base's size (results/where.json: the
products' seconds times their rate); bytes are those that a step exchanges (results/messages.json); pictures and clips
that a core prepares are results/pictures.json and results/decode.json. The machine is assumed, see `Machine`. Writes
benchmarks/results/many_gpus.json and prints the table of docs/scaling.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from base_size import RESULTS

GPUS = (1, 8, 64)


@dataclass(frozen=True)
class Machine:
    """A node of eight GPUs, as the clouds rent them out; speeds are what programs reach, not what is advertised.

    Args:
        flops: of a GPU a second, bfloat16: 40% of an A100's peak.
        inside: bytes a second that a GPU sends to those of its node.
        between: bytes a second that a GPU sends to other nodes (200 Gbit/s advertised).
        cores: of the CPU for each GPU.
        node: GPUs of a node.
    """

    flops: float = 120e12
    inside: float = 200e9
    between: float = 20e9
    cores: int = 12
    node: int = 8


@dataclass(frozen=True)
class Work:
    """A training run.

    Args:
        samples: of all epochs.
        step: row of where.json.
        batch: samples of a GPU in a step.
        negatives: whether hard negatives come from all processes, so that tokens are exchanged.
        clip: of decode.json, whose frames are decoded; "" for pictures of 640 x 480.
        frames: of a clip.
        kilobytes: of a sample's file.
    """

    samples: int
    step: str
    batch: int
    negatives: bool
    clip: str = ""
    frames: int = 1
    kilobytes: float = 128


RUNS = {
    "COCO, 6 epochs": Work(6 * 566_747, "image", 32, True),
    "COCO, negatives of the process": Work(6 * 566_747, "image", 32, False),
    "MSR-VTT, 5 epochs": Work(5 * 180_000, "video", 8, True, "bikes.mp4", 8, 600),
    "100 million pairs, contrast alone": Work(100_000_000, "image", 512, False),
}
