"""A million image-text records through the training loader from tar shards: speed, memory, and every record once.

    python benchmarks/streaming.py [--records 1000000] [--plain 20000] [--workers 2] [--folder FOLDER]

Pictures are 8 x 8 PNGs, so that reading and not decoding is measured: the hardest case. An epoch is streamed once for
its speed, with the memory of all processes together (what is theirs alone) at 1, 25, 50, 75 and 100% of it; a second
time in parts that stop and go on at random batches, each with new loading processes. Both count how often each record
came. The plain loader reads files with the same pictures, as many as `--plain`. Writes
benchmarks/results/streaming.json.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from uniadapter.app.display import set_up_logging
from uniadapter.compare.machine import processor
from uniadapter.config import DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import ErrorPolicy
from uniadapter.data.loaders import train_loader
from uniadapter.data.sharded import count_named, load_shards
from uniadapter.data.shards.index import INDEX
from uniadapter.data.splits import TrainingSet

RESULTS = Path(__file__).parent / "results"
BATCH = 256
SIDE = 16  # pixels of the loaded pictures
PARTS = 6  # of the epoch that is resumed
MARKS = (0.01, 0.25, 0.5, 0.75, 1.0)


def picture(number: int) -> bytes:
    """A PNG of 8 x 8 pixels, one for each number of 24 bits."""
    colour = (number & 255, number >> 8 & 255, number >> 16 & 255)
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def write_set(folder: Path, records: int, size: int) -> None:
    """Shards of `size` records each, with their index."""
    folder.mkdir(parents=True)
    for number in range(-(-records // size)):
        with tarfile.open(folder / f"train-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for record in range(number * size, min((number + 1) * size, records)):
                caption = json.dumps({"caption": f"record {record}"}).encode()
                for suffix, content in (("png", picture(record)), ("json", caption)):
                    member = tarfile.TarInfo(f"{record:09d}.{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def write_files(folder: Path, records: int) -> Path:
    """The same pictures as files, and their annotations."""
    folder.mkdir(parents=True)
    with (folder / "train.jsonl").open("w") as rows:
        for record in range(records):
            (folder / f"{record}.png").write_bytes(picture(record))
            rows.write(json.dumps({"image": f"{record}.png", "caption": f"record {record}"}) + "\n")
    return folder / "train.jsonl"


def memory() -> float:
    """MB that this process and its loading processes have for themselves."""
    own = psutil.Process()
    found = 0
    for one in (own, *own.children(recursive=True)):
        try:
            found += one.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return found / 1e6


def epoch(split: TrainingSet, config: DataConfig, seen: np.ndarray) -> dict[str, Any]:
    """One epoch: samples a second without the first batch, and the memory on the way."""
    loader = train_loader(split, config, size=SIDE, batch_size=BATCH, seed=0)
    marks = {max(1, round(mark * len(loader))): mark for mark in MARKS}
    used: dict[str, float] = {}
    begun, samples = 0.0, 0
    for number, batch in enumerate(loader, 1):
        np.add.at(seen, batch.sample_ids.numpy(), 1)
        samples += len(batch) if begun else 0
        begun = begun or time.perf_counter()
        if number in marks:
            pause = time.perf_counter()
            used[f"{100 * marks[number]:g}%"] = round(memory(), 1)
            begun += time.perf_counter() - pause
    seconds = time.perf_counter() - begun
    loader.close()
    return {"samples_per_second": round(samples / seconds), "seconds": round(seconds, 1), "memory_mb": used}


def resumed(split: TrainingSet, config: DataConfig, seen: np.ndarray) -> list[int]:
    """The same epoch in parts, each by a loader that begins where the last one stopped; returns where that was."""
    batches = len(train_loader(split, config, size=SIDE, batch_size=BATCH, seed=0))
    stops = sorted(random.Random(0).sample(range(1, batches), min(PARTS - 1, batches - 1)))
    for start, stop in zip([0, *stops], [*stops, batches], strict=True):
        loader = train_loader(split, config, size=SIDE, batch_size=BATCH, seed=0, start_batch=start)
        parts: Iterator[Any] = islice(loader, stop - start)
        for batch in parts:
            np.add.at(seen, batch.sample_ids.numpy(), 1)
        loader.close()
    return stops


def once(seen: np.ndarray) -> dict[str, int]:
    """How many records came never, once, and more often."""
    return {"never": int((seen == 0).sum()), "once": int((seen == 1).sum()), "more": int((seen > 1).sum())}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--plain", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=1000, help="records of a shard")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the data; without one a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "streaming.json")
    asked = parser.parse_args()
    set_up_logging()
    folder = Path(tempfile.mkdtemp(prefix="streaming-", dir=asked.folder))
    config = DataConfig(augment=False, flip=False, workers=asked.workers)
    found: dict[str, Any] = {
        "device": processor(), "torch": torch.__version__, "records": asked.records, "records_of_a_shard": asked.size,
        "batch": BATCH, "pixels": SIDE, "workers": asked.workers, "shuffle_buffer": config.shuffle_buffer,
    }  # fmt: skip
    try:
        begun = time.perf_counter()
        write_set(folder / "shards", asked.records, asked.size)
        found["writing_seconds"] = round(time.perf_counter() - begun, 1)
        begun = time.perf_counter()
        index = count_named(str(folder / "shards"), config, "retrieval", ErrorPolicy(), checksums=True)
        index = replace(index, split="train")
        (folder / "shards" / INDEX).write_bytes(index.to_json())
        found["indexing_seconds"] = round(time.perf_counter() - begun, 1)
        found["bytes"] = sum(shard.bytes for shard in index.shards)
        begun = time.perf_counter()
        split = load_shards(str(folder / "shards"), config, "retrieval")
        found["opening_seconds"] = round(time.perf_counter() - begun, 2)
        seen = np.zeros(asked.records, dtype=np.int64)
        found["shards"] = {**epoch(split, config, seen), "records_came": once(seen)}
        seen = np.zeros(asked.records, dtype=np.int64)
        stops = resumed(split, config, seen)
        found["resumed"] = {"at_batches": stops, "records_came": once(seen)}
        plain = load_retrieval(write_files(folder / "files", asked.plain), config, "train")
        found["files"] = {"records": asked.plain, **epoch(plain, config, np.zeros(asked.plain, dtype=np.int64))}
    finally:
        shutil.rmtree(folder)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
