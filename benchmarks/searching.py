"""An index of thousands of embedded pictures and clips: how fast it is built, brought up to date and searched.

    python benchmarks/searching.py            writes benchmarks/results/searching.json
    python benchmarks/searching.py --kills 10 kills the indexing process at random moments, and compares what it leaves
    python benchmarks/searching.py --ray      two workers of Ray beside the plain engine, and one of them killed
    python benchmarks/searching.py --ray --kills 10 --seconds 15 60   as above, with Ray's workers
    python benchmarks/searching.py --tiny 100000   that many tiny files, one in ten of them broken

The embedded base with the adapter `embedded:scenes`, 96 pixels; pictures and clips are those of the embedded tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

import uniadapter as ua
from uniadapter.compare.machine import processor
from uniadapter.embedded import resolve_embedded
from uniadapter.files.writing import write_text

RESULTS = Path(__file__).parent / "results" / "searching.json"
PICTURES, CLIPS, QUERIES = 2000, 200, 60


def gather(folder: Path) -> list[str]:
    """Link pictures and clips into a folder; returns captions of some of the pictures."""
    scenes = Path(resolve_embedded("embedded:scenes/train")).parent
    clips = Path(resolve_embedded("embedded:clips/test")).parent
    (folder / "pictures").mkdir(parents=True)
    (folder / "clips").mkdir()
    for file in sorted((scenes / "images" / "train").glob("*.png"))[:PICTURES]:
        shutil.copy(file, folder / "pictures")
    for file in sorted((clips / "videos" / "test").glob("*.mp4"))[:CLIPS]:
        shutil.copy(file, folder / "clips")
    rows = json.loads((scenes / "train.json").read_text())
    return [row["caption"] for row in rows[: 3 * QUERIES : 3]]


def timed(work: Any) -> tuple[Any, float]:
    """A result and the seconds that it took."""
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {"p50_ms": round(1000 * float(np.median(seconds)), 2),
            "p95_ms": round(1000 * float(np.percentile(seconds, 95)), 2)}  # fmt: skip


def measure(work: Path) -> dict[str, Any]:
    """All figures but the kills."""
    captions = gather(work / "media")
    index = ua.Index(work / "my.index", "embedded:scenes")
    update, building = timed(lambda: index.add(work / "media"))
    frames = len(index.store.frames().digests)
    _, again = timed(index.add)
    fresh = next((work / "media" / "pictures").iterdir())
    fresh.rename(fresh.with_name("renamed.png"))
    changed, incremental = timed(index.add)
    resident = {}
    index.search(captions[0])
    for name, k in (("similarity", 0), ("reranked", 16)):
        resident[name] = spread([timed(lambda c=c, k=k: index.search(c, rerank=k))[1] for c in captions])
    command = [sys.executable, "-m", "uniadapter", "search", str(work / "my.index"), captions[0], "--paths"]
    cold = {
        name: spread([timed(lambda k=k: subprocess.run([*command, "--rerank", k], check=True, capture_output=True))[1]
                      for _ in range(5)])
        for name, k in (("similarity", "0"), ("reranked", "16"))
    }  # fmt: skip
    size = sum(file.stat().st_size for file in (work / "my.index").rglob("*") if file.is_file())
    return {
        "device": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__, "files": update.added,
        "frames": frames, "build_seconds": round(building, 1), "files_a_second": round(update.added / building, 1),
        "frames_a_second": round(frames / building, 1), "index_bytes": size, "nothing_new_seconds": round(again, 2),
        "one_renamed_seconds": round(incremental, 2), "one_renamed": str(changed), "resident": resident, "cold": cold,
    }  # fmt: skip


def kills(work: Path, count: int, engine: str, seconds: tuple[float, float]) -> dict[str, Any]:
    """Kill the indexing process again and again; what is there at the end, beside an uninterrupted run.

    Args:
        work: folder to work in.
        count: kills.
        engine: of the runs that are killed.
        seconds: after which they are killed, at least and at most.
    """
    gather(work / "media")
    command = [sys.executable, "-m", "uniadapter", "index", str(work / "media"), "--model", "embedded:scenes"]
    subprocess.run([*command, "--index", str(work / "whole.index")], check=True, capture_output=True)
    command += ["--index", str(work / "my.index"), "--engine", engine]
    rng, killed, runs = random.Random(0), 0, [[0]]
    while killed < count:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(*seconds))
        if process.poll() is not None:  # it was done before: begin anew
            shutil.rmtree(work / "my.index")
            runs.append([0])
            continue
        process.kill()
        process.wait()
        killed += 1
        there = ua.Index(work / "my.index") if (work / "my.index" / "index.json").exists() else None
        runs[-1].append(len(there) if there else 0)
    subprocess.run(command, check=True, capture_output=True)
    one, other = ua.Index(work / "whole.index"), ua.Index(work / "my.index")
    rows = [[(row.path, row.digest) for row in index.files()] for index in (one, other)]
    ids = [sorted(zip(f.digests, f.numbers, strict=True)) for f in (one.store.frames(), other.store.frames())]
    return {
        "kills": killed, "files_after_each": runs, "same_files": rows[0] == rows[1], "same_frames": ids[0] == ids[1],
        "never_fewer": all(files == sorted(files) for files in runs),
    }  # fmt: skip


def ray_workers() -> list[int]:
    """Processes of Ray's workers that hold a model; Ray writes what they are into their titles."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # ended meanwhile
            found += [process.pid] if "MapWorker" in " ".join(process.cmdline()) else []
    return found


def with_ray(work: Path) -> dict[str, Any]:
    """Seconds of the plain engine, of two of Ray's workers, and of two of which one is killed; and what each leaves."""
    gather(work / "media")
    killed: list[int] = []
    first: list[float] = []

    def begun(done: int, every: int) -> None:
        first.append(time.perf_counter())

    def kill(done: int, every: int) -> None:
        first.append(time.perf_counter())
        if done > every / 4 and not killed:
            killed.append(ray_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    found: dict[str, Any] = {"device": processor(), "load_before": round(os.getloadavg()[0], 1)}
    made = {}
    two: dict[str, Any] = {"engine": "ray", "workers": 2}
    for name, on_progress, options in (("plain", begun, {}), ("ray", begun, two), ("killed", kill, two)):
        first.clear()
        index = made[name] = ua.Index(work / f"{name}.index", "embedded:scenes")
        started = time.perf_counter()
        index.add(work / "media", on_progress=on_progress, **options)
        found[name] = {
            "seconds": round(time.perf_counter() - started, 1),
            "until_the_first_batch": round(first[0] - started, 1),
        }
    found["load_after"] = round(os.getloadavg()[0], 1)
    plain = frames_of(made["plain"])
    for name in ("ray", "killed"):
        frames = frames_of(made[name])
        found[name] |= {
            "same_files": made[name].files() == made["plain"].files(), "same_frames": frames.keys() == plain.keys(),
            "largest_difference": max(float(np.abs(frames[key] - plain[key]).max()) for key in plain),
        }  # fmt: skip
    return {**found, "killed_workers": len(killed)}


def frames_of(index: ua.Index) -> dict[tuple[str, int, float], np.ndarray]:
    """Vectors by digest, number and time."""
    found = index.store.frames()
    keys = zip(found.digests, map(int, found.numbers), map(float, found.times), strict=True)
    return dict(zip(keys, found.vectors, strict=True))


def tiny(work: Path, count: int) -> dict[str, Any]:
    """Index a folder of very many files of 8 by 8 pixels, one in ten of them broken, by the command; then once more."""
    rng = np.random.default_rng(0)
    for number in range(count):
        file = work / "media" / f"{number // 1000:03d}" / f"{number:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
        if number % 10 == 9:
            file.write_bytes(file.read_bytes()[:40])
    command = [sys.executable, "-m", "uniadapter", "index", str(work / "media"), "--model", "embedded:scenes"]
    command += ["--index", str(work / "tiny.index")]
    found: dict[str, Any] = {"device": processor(), "files": count}
    for name in ("first", "again"):
        done, seconds = timed(lambda: subprocess.run(command, check=True, capture_output=True, text=True))
        lines = (done.stdout + done.stderr).splitlines()
        last = lines[-1].replace(str(work), "")
        found[name] = {"seconds": round(seconds, 1), "lines_printed": len(lines), "last_line": last}
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
    index = ua.Index(work / "tiny.index")
    index.search("a red kite")
    found["search"] = spread([timed(lambda: index.search("a red kite", rerank=0))[1] for _ in range(20)])
    return found


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--tiny", type=int, default=0)
    parser.add_argument("--seconds", type=float, nargs=2, default=(4, 12), help="after which a process is killed")
    asked = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        if asked.tiny:
            found["tiny"] = tiny(Path(folder), asked.tiny)
        elif asked.kills:
            name, engine = ("ray_kills", "ray") if asked.ray else ("kills", "plain")
            found[name] = kills(Path(folder), asked.kills, engine, tuple(asked.seconds))
        elif asked.ray:
            found["ray"] = with_ray(Path(folder))
        else:
            kept = {name: found[name] for name in ("kills", "ray", "ray_kills", "tiny") if name in found}
            found = {**measure(Path(folder)), **kept}
    write_text(RESULTS, json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
