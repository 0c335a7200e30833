"""Encode the animations and compose the clips: ``python -m world.clips`` writes ``assets/clips``.

Every animation ships once, as an H.264 file on a background of its own. A longer clip is a list of animations, whose
packets ``uniadapter.embedded`` puts behind one another on first use, without encoding anything anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from uniadapter.embedded.emoji_scenes import SIZE, gradient
from world import sources
from world.compose import SPLIT_OF, background, scene_names
from world.concepts import Concept, in_scenes, plain_hexcode
from world.gather import CACHE, square
from world.sequences import ORDER_WORDS, Sequencer, hard_captions

LOG = logging.getLogger(__name__)
SEQUENCES = {"train": 1600, "val": 120, "test": 400, "test_novel": 100}
FRAMES, RATE = 24, 8  # of an animation, however long it was: three seconds
SIDE = 84  # of an animation on its picture, in pixels
SETTINGS = {"preset": "veryslow", "crf": "30", "tune": "animation", "g": "24", "threads": "1"}


def animations() -> dict[str, Path]:
    """Hexcode to file, of all emoji that move."""
    files: dict[str, Path] = {}
    for package in sources.ANIMATED:
        for path in sorted((sources.fetch(package, CACHE / "pkg") / "assets").glob("*.webp")):
            files.setdefault(plain_hexcode(path.stem), path)
    return files


def frames_of(path: Path) -> list[Image.Image]:
    """`FRAMES` pictures of an animation, the middles of equal segments; none of a still one."""
    with Image.open(path) as image:
        total = getattr(image, "n_frames", 1)
        if total < 8:
            return []
        wanted = {(2 * i + 1) * total // (2 * FRAMES) for i in range(FRAMES)}
        shown = [f.convert("RGBA") for i, f in enumerate(ImageSequence.Iterator(image)) if i in wanted]
    return [shown[i * len(shown) // FRAMES] for i in range(FRAMES)]


def drawn(frames: list[Image.Image], rng: random.Random) -> Iterator[np.ndarray]:
    """RGB [96, 96, 3] frames on a gradient."""
    first, second, angle = background(rng)
    base = gradient(str(first), str(second), float(angle))
    margin = (SIZE - SIDE) // 2
    for frame in frames:
        sprite = np.asarray(Image.fromarray(square(frame, SIDE)).convert("RGBa"), dtype=np.float64)
        canvas = base.copy()
        window = canvas[margin : margin + SIDE, margin : margin + SIDE]
        window *= 1 - sprite[..., 3:] / 255
        window += sprite[..., :3]
        yield np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def encode(pictures: Iterator[np.ndarray], path: Path) -> None:
    """Write an H.264 clip whose one keyframe is the first, so that clips can be joined without encoding."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=SETTINGS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_clips(out: Path, seed: int) -> None:
    """Write the animations, the lists and their hashes."""
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    names = scene_names(concepts)
    names = {code: [n for n in own if not ORDER_WORDS & set(n.split())] for code, own in names.items()}
    files = animations()
    (out / "single").mkdir(parents=True, exist_ok=True)
    shown: dict[str, Concept] = {}
    for concept in concepts:
        if not in_scenes(concept) or not names.get(concept.hexcode) or concept.hexcode not in files:
            continue
        frames = frames_of(files[concept.hexcode])
        if frames:
            path = out / "single" / f"{concept.hexcode}.mp4"
            encode(drawn(frames, random.Random(f"{seed}:{concept.hexcode}")), path)
            shown[concept.hexcode] = concept
    LOG.info("%d animations, %.2f MB", len(shown), sum(p.stat().st_size for p in (out / "single").iterdir()) / 1e6)
    table = {
        code: {"label": c.label, "family": c.family, "split": c.split, "names": names[code]}
        for code, c in shown.items()
    }
    (out / "clips.json").write_text(json.dumps(table, sort_keys=True).replace("}, ", "},\n") + "\n")
    facts = {}
    for split, total in SEQUENCES.items():
        codes = sorted(code for code, c in shown.items() if c.split == SPLIT_OF[split])
        sequences = Sequencer(split, codes, names, seed).sequences(total)
        lines = [json.dumps(s.row(), separators=(",", ":")) for s in sequences]
        (out / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
        facts[split] = {"clips": total, "concepts": len(codes), "twins": sum(s.partner is not None for s in sequences),
                        **hard_captions(sequences)}  # fmt: skip
        LOG.info("%s: %s", split, facts[split])
    (out / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    listed = sorted((out / "single").glob("*.mp4")) + [out / "clips.json"] + [out / f"{s}.jsonl" for s in SEQUENCES]
    hashes = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(out)}" for p in listed]
    (out / "SPLIT_SHA256").write_text("\n".join(hashes) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CACHE.parent.parent / "assets" / "clips")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_clips(args.out, args.seed)
