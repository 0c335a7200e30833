"""How near the 3-D pictures are to those that pre-training saw: `measure`, for the data card.

Over the concepts of the tasks, style by style: the distance of 64-bit perceptual hashes, and how often the nearest
picture of a style, by that hash or as 16 × 16 colours, is of the same concept. The flat drawings of the 3-D style's own
artists, which pre-training leaves out for this reason, are measured for comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from world.pictures.concepts import read_concepts
from world.pictures.gathering import cropped, read_words
from world.pictures.rendering import render_svg, slugs_of, style_bodies
from world.pictures.sources import CACHE, DRAWN, FLAT, HELD_OUT, NEW, fetch

NEAR = 6  # of 64 bits: what is commonly called a near-duplicate


def on_grey(picture: np.ndarray) -> Image.Image:
    """An RGBA picture [H, W, 4] on middle grey."""
    back = Image.new("RGBA", (picture.shape[1], picture.shape[0]), (128, 128, 128, 255))
    return Image.alpha_composite(back, Image.fromarray(picture)).convert("RGB")


def perceptual_hash(picture: np.ndarray) -> np.ndarray:
    """64 bits: the low frequencies of a picture [H, W, 4] against their median."""
    grey = np.asarray(on_grey(picture).convert("L").resize((32, 32), Image.Resampling.LANCZOS))
    rows, columns = np.arange(32)[:, None], np.arange(32)[None, :]
    cosines = np.cos(np.pi * rows * (2 * columns + 1) / 64)
    low = (cosines @ grey.astype(np.float64) @ cosines.T)[:8, :8].ravel()
    return low > np.median(low[1:])


def colours(picture: np.ndarray) -> np.ndarray:
    """16 × 16 colours of a picture [H, W, 4] as one centred unit vector."""
    small = np.asarray(on_grey(picture).resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
    vector = small.ravel() - small.mean()
    return vector / max(float(np.linalg.norm(vector)), 1e-6)


def compare(new: dict[str, np.ndarray], style: dict[str, np.ndarray]) -> dict[str, float | int]:
    """Measures between the new style and one other, both code → RGBA uint8 [96, 96, 4].

    Returns:
        `concepts` that both have; of these, in per cent, how often the nearest picture of the style is of the same
        concept `by_hash` (ties count as missed) and `by_colours`; the median `bits` between pictures of one concept;
        and how many of the new pictures have `near` ones in the style.
    """
    others = sorted(style)
    bits = np.stack([perceptual_hash(style[code]) for code in others])
    vectors = np.stack([colours(style[code]) for code in others])
    apart, by_hash, by_colours, near = [], 0, 0, 0
    for code, picture in sorted(new.items()):
        distance = (bits != perceptual_hash(picture)).sum(1)
        near += int(distance.min() <= NEAR)
        if code in style:
            own = int(distance[others.index(code)])
            apart.append(own)
            by_hash += int((distance <= own).sum() == 1)
            by_colours += others[int((vectors @ colours(picture)).argmax())] == code
    shared = max(len(apart), 1)
    return {
        "concepts": len(apart), "by_hash": round(100 * by_hash / shared, 1),
        "by_colours": round(100 * by_colours / shared, 1), "bits": float(np.median(apart)), "near": near,
    }  # fmt: skip


def measure() -> dict[str, Any]:
    """`compare` for every style, with how many pictures of it pre-training saw.

    Raises:
        FileNotFoundError: the pictures have not been gathered.
    """
    concepts = read_concepts()
    codes, seen = {concept.code for concept in concepts}, {concept.code for concept in concepts if not concept.novel}
    table: dict[str, dict[str, np.ndarray]] = {}
    with np.load(CACHE / "pictures.npz") as file:
        stack = file["pictures"]
        for row, (style, code) in enumerate(zip(file["styles"], file["codes"], strict=True)):
            if str(code) in codes:
                table.setdefault(str(style), {})[str(code)] = stack[row]
    words = read_words()
    bodies = style_bodies(fetch(FLAT), slugs_of(list(words.values())))
    table["fluent-emoji-flat"] = {code: cropped(render_svg(*icon)) for code, icon in bodies.items() if code in codes}
    new = table[NEW]
    styles = {}
    for style in (*DRAWN, "fluent-emoji-flat"):
        used = style in DRAWN and style != HELD_OUT
        styles[style] = {"pre_trained": len(table[style].keys() & seen) if used else 0, **compare(new, table[style])}
    return {"concepts": len(concepts), "seen": len(seen), "near_bits": NEAR, "styles": styles}
