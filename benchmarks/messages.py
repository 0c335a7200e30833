"""How much the processes of a retrieval run exchange in a training step, at BLIP-base's size.

    python benchmarks/messages.py          writes benchmarks/results/messages.json, in a minute

Two processes take a step of two pairs each, in which every tensor that they hand to a collective is counted; a formula
that gives the same bytes is then asked about more processes. What a ring sends of it: (p - 1) / p of what an all-gather
ends with, and twice that of what an all-reduce is given. Visual tokens go from one process to another, at most those of
as many visuals as a process has pairs, forwards and, as gradients, back.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from base_size import ADAPTERS, our_model, texts
from torch import Tensor

from uniadapter.config import ModelConfig, ObjectiveConfig
from uniadapter.files.writing import write_text
from uniadapter.model.backbone import Layout
from uniadapter.model.dispatch import backbone
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

RESULTS = Path(__file__).parent / "results" / "messages.json"
PIXELS, ROWS, WORLDS = 224, 2, 2
ASKED = ((8, 32), (64, 32))  # processes, and pairs of each
LOSSES = {
    "contrast (softmax)": ObjectiveConfig(loss="softmax", matching=False),
    "contrast (momentum, queue)": ObjectiveConfig(queue_size=1024, matching=False),
    "contrast (momentum, queue) and matching": ObjectiveConfig(queue_size=1024),
}
COUNT = 8  # bytes of a number of rows, which goes before each gathered tensor


def gathered(objective: ObjectiveConfig, layout: Layout, world: int, rows: int, longest: int) -> dict[str, int]:
    """Bytes that one process gives to all-gathers, by what they are: float32 features, int64 ids."""
    feature = 4 * layout.feature_width
    found = {"features": 2 * rows * feature, "ids": 8 * rows, "row counts": 4 * COUNT}
    if objective.matching:
        found["features"] += 3 * rows * feature  # of visuals, their frames and texts
        found["ids"] += 8 * rows + 2 * 8 * rows * longest + 8  # of samples, and the texts' tokens and mask
        found["row counts"] += (9 + world) * COUNT  # and how many rows each wants of each
    return found


def reduced(objective: ObjectiveConfig, layout: Layout, rows: int, trained: int) -> dict[str, int]:
    """Bytes that one process gives to all-reduces in the backward pass; `rows` are those of all processes."""
    found = {"gradients of weights": 4 * trained}
    if objective.loss == "softmax":
        found["gradients of features"] = 2 * rows * 4 * layout.feature_width
    return found


def tokens_of(layout: Layout) -> int:
    """Bytes of a picture's tokens, float32."""
    return 4 * ((layout.image_size // layout.patch_size) ** 2 + 1) * layout.vision_width


def step(rank: int, folder: str) -> None:
    """One of two processes: a step with each loss, its collectives counted."""
    torch.set_num_threads(1)
    met = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=WORLDS, timeout=timedelta(seconds=300))
    sent: Counter[str] = Counter()
    for name in ("all_gather", "all_reduce", "all_to_all_single"):
        original = getattr(dist, name)

        def counting(*given: Any, name: str = name, original: Any = original) -> Any:
            tensor: Tensor = given[0] if name == "all_reduce" else given[1]
            sent[name] += tensor.numel() * tensor.element_size()
            return original(*given)

        setattr(dist, name, counting)
    found = {}
    for name, objective in LOSSES.items():
        sent.clear()
        loss = RetrievalLoss(our_model(PIXELS), None, ModelConfig(), objective)
        loss.training = True
        ids, mask = texts(ROWS, seed=rank)
        own = torch.arange(ROWS) + rank * ROWS
        losses = loss.losses(
            torch.randn(ROWS, 1, 3, PIXELS, PIXELS), TokenBatch(ids, mask), own, own, StepInfo(0, 1, 0, 1)
        )
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        trained = sum(p.numel() for p in loss.parameters() if p.requires_grad)
        longest = torch.tensor(int(mask.sum(1).max()))
        found[name] = {**sent, "trained": trained, "longest": int(longest)}
        loss.release()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def ring(
    objective: ObjectiveConfig, layout: Layout, world: int, rows: int, longest: int, trained: int, frames: int = 1
) -> dict[str, Any]:
    """MB that each process sends in a step, by what it is."""
    part = (world - 1) / world
    gives = gathered(objective, layout, world, rows, longest)
    sent = {what: part * world * size for what, size in gives.items()}
    takes = reduced(objective, layout, world * rows, trained)
    sent |= {what: 2 * part * size for what, size in takes.items()}
    if objective.matching:
        sent["visual tokens"] = sent["gradients of visual tokens"] = part * rows * frames * tokens_of(layout)
    return {
        **{what: round(size / 2**20, 3) for what, size in sent.items()},
        "all": round(sum(sent.values()) / 2**20, 1),
    }


def main() -> None:
    """Count, compare with the formula, write."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    layout = backbone(our_model(PIXELS)).layout
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(step, args=(folder,), nprocs=WORLDS)  # type: ignore[attr-defined, no-untyped-call]
        counted = [torch.load(f"{folder}/{rank}.pt") for rank in range(WORLDS)]
    longest = max(one["longest"] for each in counted for one in each.values())
    series = {}
    for name, objective in LOSSES.items():
        one = counted[0][name]
        trained = one["trained"]
        gives = gathered(objective, layout, WORLDS, ROWS, longest)
        takes = reduced(objective, layout, WORLDS * ROWS, trained)
        takes.pop("gradients of weights")  # which DDP sends
        assert sum(gives.values()) == one["all_gather"], (name, gives, one)
        assert sum(takes.values()) == one.get("all_reduce", 0), (name, takes, one)
        most = 2 * ROWS * (2 * tokens_of(layout) + 8)  # own visuals too, which stay; and which ones are wanted
        assert one.get("all_to_all_single", 0) <= most * bool(objective.matching), (name, one)
        series[name] = {
            f"{world} processes of {rows} pairs, MB sent by each": ring(
                objective, layout, world, rows, longest, trained
            )
            for world, rows in ASKED
        }
    written = {"model": f"BLIP-base, {PIXELS} px, r = {ADAPTERS.bottleneck}", "counted": counted[0], "series": series}
    write_text(RESULTS, json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
