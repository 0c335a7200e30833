"""Does loading bound training? Samples a second of the embedded video task: loading alone, training alone, and both.

    python benchmarks/loading.py [--steps 12]

The recipe is configs/clips.yaml. "Training alone" steps over batches that were loaded before. The embedded base is
tiny, so this is the hardest case: at BLIP-base size a sample takes seconds. Writes benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from uniadapter.app.demo import demo_config
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.compare.machine import processor
from uniadapter.config import RunConfig
from uniadapter.data.batches import Batch
from uniadapter.data.loaders import train_loader
from uniadapter.runs.steps import load_split
from uniadapter.tasks import task_for
from uniadapter.tasks.preparing import image_size, prepare
from uniadapter.training.loss import StepInfo

RESULTS = Path(__file__).parent / "results"


class Meter:
    """Steps of the recipe's training, and what feeds them."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.prepared = config, prepare(config)
        self.split = load_split(config, "train")
        self.task = task_for(config).training_loss(self.prepared, self.split, config)
        trained = [p for p in self.prepared.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def loader(self, workers: int) -> Iterable[Batch]:
        """The recipe's batches."""
        data = replace(self.config.data, workers=workers)
        size, batch_size = image_size(self.prepared, self.config), self.config.train.batch_size
        return train_loader(self.split, data, size=size, batch_size=batch_size, seed=0)

    def train(self, batches: Iterable[Batch]) -> float:
        """Samples a second; the first step is a warm-up."""
        samples, start = 0, 0.0
        for number, batch in enumerate(batches):
            losses = self.task(batch, StepInfo(0, 100, 0, 1))
            losses["loss"].backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            samples += len(batch) if number else 0
            start = start or time.perf_counter()
        return samples / (time.perf_counter() - start)

    def load(self, workers: int, steps: int) -> float:
        """Samples a second of loading alone; the first batch, which starts the workers, is not counted."""
        samples, start = 0, 0.0
        for number, batch in enumerate(islice(self.loader(workers), steps)):
            samples += len(batch) if number else 0
            start = start or time.perf_counter()
        return samples / (time.perf_counter() - start)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS / "loading.json")
    asked = parser.parse_args()
    set_up_logging()
    keep_freed_memory()
    meter = Meter(demo_config("video", "uniadapter", 0))
    held = list(islice(meter.loader(0), asked.steps))
    found: dict[str, Any] = {"training_alone": meter.train(held)}
    for workers in (0, 1, 2):
        both = meter.train(islice(meter.loader(workers), asked.steps))
        found[f"workers_{workers}"] = {"loading_alone": meter.load(workers, asked.steps), "training": both}
    rounded = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 1))
    machine = {"device": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    recipe = {"frames": meter.config.data.frames, "batch": meter.config.train.batch_size, "steps": asked.steps}
    asked.out.write_text(json.dumps({**machine, **recipe, "samples_per_second": rounded}, indent=2) + "\n")


if __name__ == "__main__":
    main()
