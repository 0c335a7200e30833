"""Does loading pictures bound training? Pictures a second of one process: decoding, and decoding with augmentation.

    python benchmarks/pictures.py

JPEGs are written at the sizes that circulate: 640 x 480 (COCO), 12 megapixels (a telephone). There are no photographs
here, so they are blurred noise at quality 90, whose files are about as large as a photograph's. Beside ours stands full
decoding with the same transform; what both give is compared. A model at BLIP-base size takes about half a picture a
second in training on the same CPU, and some hundreds on a large GPU. Writes benchmarks/results/pictures.json.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from base_size import RESULTS, machine
from PIL import Image, ImageFilter
from torch import Tensor

from uniadapter.data.media.images import EvaluationTransform, TrainTransform, load_picture

SIZES = {"640 x 480": (640, 480), "4000 x 3000": (4000, 3000)}
SIDE = 384
COUNT, REPEATS = 8, 5


def write_pictures(folder: Path, size: tuple[int, int]) -> list[Path]:
    """Blurred noise as JPEG."""
    rng, files = np.random.default_rng(0), []
    for number in range(COUNT):
        noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        files.append(folder / f"{size[0]}-{number}.jpg")
        noise.filter(ImageFilter.GaussianBlur(1)).save(files[-1], quality=90)
    return files


def rates(ways: dict[str, Callable[[Path], Any]], files: list[Path]) -> dict[str, float]:
    """Pictures a second of each way, in turn; medians."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(REPEATS + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            for file in files:
                way(file)
            if turn:
                spent[name].append(time.perf_counter() - start)
    return {name: round(len(files) / median(times), 1) for name, times in spent.items()}


def main() -> None:
    """Measure and write."""
    training, evaluation = TrainTransform(SIDE), EvaluationTransform(SIDE)

    def trained(file: Path, draft: bool) -> Tensor:
        return training(load_picture(file, min_side=training.min_side if draft else 0), random.Random(0))

    def evaluated(file: Path, draft: bool) -> Tensor:
        return evaluation(load_picture(file, min_side=evaluation.min_side if draft else 0))

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            files = write_pictures(Path(folder), size)
            for what, way in {"training": trained, "evaluation": evaluated}.items():
                found = rates({"ours": lambda f, w=way: w(f, True), "full": lambda f, w=way: w(f, False)}, files)
                apart = (evaluated(files[0], True) - evaluated(files[0], False)).abs().mean()
                rows.append({
                    "work": f"{what}, {name} to {SIDE} px", "kilobytes": round(files[0].stat().st_size / 1000),
                    "pictures_per_second": found["ours"], "full_decoding": found["full"],
                    "ratio": round(found["ours"] / found["full"], 2), "mean_difference": float(apart),
                    "device": machine(),
                })  # fmt: skip
    (RESULTS / "pictures.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
