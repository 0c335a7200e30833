"""What 1, 8 and 64 GPUs would bring, on paper: measured rates and message sizes, divided by assumed speeds of hardware.

    python benchmarks/many_gpus.py

Nothing here has run on a GPU. Work of a sample is that of a training step at BLIP-base's size (results/where.json: the
products' seconds times their rate); bytes are those that a step exchanges (`messages.py`); pictures and clips
that a core prepares are results/pictures.json and results/decode.json. The machine is assumed, see `Machine`. Writes
benchmarks/results/many_gpus.json and prints the table of docs/scaling.md.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from base_size import RESULTS, our_model
from messages import ring

from uniadapter.config import ObjectiveConfig
from uniadapter.model.backbone import Layout
from uniadapter.model.dispatch import backbone

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
        objective: the loss, on which it depends what is exchanged.
        pixels: side of a frame.
        clip: of decode.json, whose frames are decoded; "" for pictures of 640 x 480.
        frames: of a clip.
        kilobytes: of a sample's file.
    """

    samples: int
    step: str
    batch: int
    objective: ObjectiveConfig
    pixels: int
    clip: str = ""
    frames: int = 1
    kilobytes: float = 128


BOTH, CONTRAST = ObjectiveConfig(), ObjectiveConfig(loss="softmax", matching=False, momentum=0, queue_size=0)
RUNS = {
    "COCO, 6 epochs": Work(6 * 566_747, "image", 32, BOTH, 384),
    "MSR-VTT, 5 epochs": Work(5 * 180_000, "video", 8, BOTH, 224, "bikes.mp4", 8, 600),
    "100 million pairs, contrast": Work(100_000_000, "image", 512, CONTRAST, 384),
}
LONGEST = 35  # tokens of a text


def read(name: str) -> Any:
    """A committed result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def flops(step: str) -> float:
    """Of a sample in a training step, which was measured with two."""
    row = read("where")["rows"][f"training step, {step}, bfloat16"]
    return float(row["seconds"]["products"] * row["products_gflops"]) * 1e9 / 2


def prepared(work: Work) -> float:
    """Samples a second that a core reads, decodes and augments."""
    pictures = next(r for r in read("pictures") if r["work"].startswith("training, 640"))
    if not work.clip:
        return float(pictures["pictures_per_second"])
    rows = (r for r in read("decode")["rows"] if r["clip"] == work.clip and r["peer"] == "plain_pyav")
    return float(next(rows)["frames_per_second"]) / work.frames


@cache
def layout_of(pixels: int) -> Layout:
    """Of BLIP-base."""
    return backbone(our_model(pixels)).layout


def sent(work: Work, gpus: int) -> float:
    """Bytes that a GPU sends in a step."""
    trained = next(r["trainable"] for r in read("training") if r["work"].startswith(work.step))
    found = ring(work.objective, layout_of(work.pixels), gpus, work.batch, LONGEST, trained, work.frames)
    return float(found["all"]) * 2**20


def estimate(work: Work, gpus: int, machine: Machine) -> dict[str, Any]:
    """A run on some GPUs; exchange and computation one after the other, loading beside them."""
    computing = work.batch * flops(work.step) / machine.flops
    bandwidth = machine.inside if gpus <= machine.node else machine.between
    bytes_sent = sent(work, gpus)
    exchanging = bytes_sent / bandwidth
    loading = work.batch / (prepared(work) * machine.cores)
    step = max(computing + exchanging, loading)
    hours = work.samples / (work.batch * gpus) * step / 3600
    return {
        "gpus": gpus, "batch": work.batch * gpus, "computing_ms": 1e3 * computing, "exchanging_ms": 1e3 * exchanging,
        "megabytes_sent": bytes_sent / 2**20, "loading_ms": 1e3 * loading,
        "hours": hours, "efficiency": computing / step,
        "read_megabytes_a_second": work.batch * gpus / step * work.kilobytes / 1e3,
    }  # fmt: skip


def main() -> None:
    """Compute, write, print."""
    machine = Machine()
    rows = {name: [estimate(work, gpus, machine) for gpus in GPUS] for name, work in RUNS.items()}
    runs = {name: {**asdict(work), "objective": asdict(work.objective)} for name, work in RUNS.items()}
    found = {"assumed": asdict(machine), "runs": runs, "rows": rows}
    (RESULTS / "many_gpus.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        "| | GPUs | computing | exchanging | loading | hours | MB sent | MB read a second |",
        "|:--|--:|" + "--:|" * 6,
    ]
    for name, estimates in rows.items():
        for one in estimates:
            times = " | ".join(f"{one[key]:.3g} ms" for key in ("computing_ms", "exchanging_ms", "loading_ms"))
            moved = f"{one['megabytes_sent']:.0f} | {one['read_megabytes_a_second']:.0f}"
            lines.append(f"| {name} | {one['gpus']} | {times} | {one['hours']:.2g} | {moved} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
