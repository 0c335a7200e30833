"""How near the pictures of the scenes are to those of pre-training: ``python -m world.leakage``.

Two measures, over the sprites that the scenes use: the distance of 64-bit perceptual hashes, and
whether the nearest picture of a style, as 16 × 16 colours, is of the same concept. The flat
drawings of the same artists, left out of pre-training for this reason, are measured for comparison.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
from PIL import Image

from world import sources
from world.concepts import Concept
from world.gather import CACHE, render_svg, slugs_of, style_bodies

LOG = logging.getLogger(__name__)
FLAT = sources.Package("@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "leakage check only")
NEAR = 6  # of 64 bits: what is commonly called a near-duplicate


def on_grey(picture: np.ndarray) -> Image.Image:
    """An RGBA picture on middle grey."""
    back = Image.new("RGBA", (picture.shape[1], picture.shape[0]), (128, 128, 128, 255))
    return Image.alpha_composite(back, Image.fromarray(picture)).convert("RGB")


def cosine_matrix(size: int = 32) -> np.ndarray:
    """DCT-II as a matrix."""
    k, n = np.arange(size)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * k * (2 * n + 1) / (2 * size))


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """64 bits: the low frequencies against their median."""
    grey = np.asarray(on_grey(picture).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    matrix = cosine_matrix()
    low = (matrix @ grey.astype(np.float64) @ matrix.T)[:8, :8].ravel()
    return low > np.median(low[1:])


def colours(picture: np.ndarray) -> np.ndarray:
    """16 × 16 colours as one centred unit vector."""
    small = np.asarray(on_grey(picture).resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    vector = small.ravel() - small.mean()
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def compare(new: dict[str, np.ndarray], style: dict[str, np.ndarray]) -> dict[str, float | int | list[str]]:
    """Both measures between the new style and one other."""
    codes, others = sorted(new), sorted(style)
    bits = np.stack([perceptual_hash(style[c]) for c in others])
    vectors = np.stack([colours(style[c]) for c in others])
    near, own_distance, same, shared = [], [], 0, 0
    for code in codes:
        distance = (bits != perceptual_hash(new[code])).sum(1)
        if distance.min() <= NEAR:
            near.append(code)
        if code in style:
            shared += 1
            own_distance.append(int(distance[others.index(code)]))
            same += others[int((vectors @ colours(new[code])).argmax())] == code
    return {
        "shared_concepts": shared,
        "nearest_is_same_concept": round(same / max(shared, 1), 3),
        "median_hash_distance_same_concept": float(np.median(own_distance)),
        "hash_within_6_bits": len(near),
        "hash_within_6_bits_hexcodes": near,
    }


def main(out: Path) -> None:
    """Write ``leakage.json`` beside the scenes."""
    used = set(json.loads((out / "sprites.json").read_text())["sprites"])
    with np.load(CACHE / "pictures.npz") as file:
        pictures, styles, codes = file["pictures"], file["styles"], file["codes"]
    table: dict[str, dict[str, np.ndarray]] = {}
    for i, (style, code) in enumerate(zip(styles, codes, strict=True)):
        table.setdefault(str(style), {})[str(code)] = pictures[i]
    concepts = [Concept(**row) for row in json.loads((CACHE / "concepts.json").read_text())]
    known = {c.hexcode for c in concepts}
    bodies = style_bodies(sources.fetch(FLAT, CACHE / "pkg"), slugs_of(concepts))
    table["fluent-emoji-flat (not used)"] = {c: render_svg(*icon) for c, icon in bodies.items() if c in known}
    new = {c: p for c, p in table.pop("fluent-3d").items() if c in used}
    result = {style: compare(new, drawn) for style, drawn in table.items()}
    (out / "leakage.json").write_text(json.dumps({"sprites": len(new), "styles": result}) + "\n")
    for style, row in result.items():
        LOG.info("%s %s", style, {k: v for k, v in row.items() if not isinstance(v, list)})


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main(CACHE.parent.parent / "assets" / "scenes")
