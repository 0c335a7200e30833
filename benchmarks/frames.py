"""Memory of a training step on videos at BLIP-base size: 8 frames of 224 px, batch 4, frames in chunks or all at once.

Random weights, float32, frame-aware attention, key/value adapters and momentum on. Each setting runs in a process of
its own; the losses are compared. Writes benchmarks/results/frames.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from base_size import load, peak, resident, texts, trained_set

from uniadapter.app.memory import keep_freed_memory
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.compare.machine import processor
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

RESULTS = Path(__file__).parent / "results"
SETTINGS = {
    "all at once": ModelConfig(),
    "chunks of 4": ModelConfig(frame_chunk=4),
    "checkpointing": ModelConfig(checkpoint_vision=True),
    "chunks of 4, checkpointing": ModelConfig(frame_chunk=4, checkpoint_vision=True),
}
logger = logging.getLogger("frames")


def step(name: str, batch: int, frames: int, repeats: int) -> dict[str, Any]:
    """Training steps under one setting: seconds of each, MB above the loaded model, losses of the first."""
    settings = SETTINGS[name]
    model = load(224)
    torch.manual_seed(2)
    adapter = add_adapter(model, AdapterConfig(bottleneck=128, key_value=64, frame_aware=True))
    adapter.load_state_dict(trained_set(model))
    if settings.checkpoint_vision:
        model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    task = RetrievalLoss(model, None, settings, ObjectiveConfig(queue_size=1024))
    task.training = True
    model.vision_model.train()  # there is no dropout in it; without this it would not recompute
    loaded = resident()
    optimizer = torch.optim.AdamW(adapter_set(model).parameters(), lr=0.0)
    pixels = torch.randn(batch, frames, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    ids, mask = texts(batch)
    own, times, losses = torch.arange(batch), [], {}
    for _ in range(repeats):
        start = time.perf_counter()
        found = task.losses(pixels, TokenBatch(ids, mask), own, own, StepInfo(0, 1, 0, 1))
        found["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
        losses = losses or {key: float(value.detach()) for key, value in found.items()}
    return {"setting": name, "seconds": median(times), "peak_mb": peak() - loaded, "losses": losses}


def measured(name: str, batch: int, frames: int, repeats: int) -> dict[str, Any]:
    """`step` in a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        numbers = ["--batch", str(batch), "--frames", str(frames), "--repeats", str(repeats)]
        subprocess.run([sys.executable, __file__, "--setting", name, "--out", file.name, *numbers], check=True)
        result: dict[str, Any] = json.loads(Path(file.name).read_text())
        return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--setting", choices=tuple(SETTINGS))
    parser.add_argument("--out")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.setting:
        keep_freed_memory()
        result = step(arguments.setting, arguments.batch, arguments.frames, arguments.repeats)
        Path(arguments.out).write_text(json.dumps(result))
        return
    rows = []
    for name in SETTINGS:
        rows.append(measured(name, arguments.batch, arguments.frames, arguments.repeats))
        first = rows[0]
        rows[-1]["memory_ratio"] = rows[-1]["peak_mb"] / first["peak_mb"]
        rows[-1]["max_difference"] = max(abs(rows[-1]["losses"][key] - value) for key, value in first["losses"].items())
        logger.info("%s", json.dumps(rows[-1]))
    work = {"batch": arguments.batch, "frames": arguments.frames, "pixels": 224, "dtype": "float32"}
    written = {**work, "device": processor(), "threads": torch.get_num_threads(), "rows": rows}
    (RESULTS / "frames.json").write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
