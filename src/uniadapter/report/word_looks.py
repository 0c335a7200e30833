"""Pictures of attention: a picture in colour where a word looks, grey and dark elsewhere; for clips, by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

from uniadapter.report.thumbnails import Picture, Thumbnails

GREY, FLOOR = 0.35, 24.0  # brightness of what gets no attention: share of the picture's, and what is added (of 255)
SHORT = 4  # frames of strips of which two stand side by side
FULL = 4.0  # times the mean share of a patch: the least that is shown in full colour


@dataclass
class WordLook:
    """Where a word looks before and after training.

    Args:
        word: of the query or question; or several side by side, whose mean the maps are.
        before: share of its attention that each patch gets, [T, rows, columns]; None if unknown.
        after: the same after training.
        frames_before: share that each frame of a clip gets, [T]; () for pictures.
        frames_after: the same after training.
    """

    word: str
    before: np.ndarray | None
    after: np.ndarray | None
    frames_before: Sequence[float] = ()
    frames_after: Sequence[float] = ()


def spotlights(frames: Sequence[Image.Image], shares: np.ndarray) -> list[Image.Image]:
    """Pictures in full colour where most attention goes, grey and dark where none does.

    Args:
        frames: a picture, or the T frames of a clip, as they were shown to the model, in any size.
        shares: of the attention, for each patch, [T, rows, columns]. Full colour is the largest of them, or four times
            the mean, if that is more: attention that is spread evenly is not lit up.

    Returns:
        RGB pictures of the same sizes.
    """
    lit = shares / max(float(shares.max()), FULL * float(shares.mean()))
    return [_lit(frame, light) for frame, light in zip(frames, lit, strict=True)]


def _lit(frame: Image.Image, light: np.ndarray) -> Image.Image:
    mask = Image.fromarray(light.astype(np.float32)).resize(frame.size, Image.Resampling.BICUBIC)
    part = np.asarray(mask).clip(0, 1)[..., None]
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float32)
    dark = pixels.mean(-1, keepdims=True) * GREY + FLOOR
    return Image.fromarray((dark * (1 - part) + pixels * part).astype(np.uint8))


def looks_section(
    looks: Sequence[WordLook], picture: Picture | None, noun: str, labels: tuple[str, str], thumbnails: Thumbnails
) -> str:
    """The words' pictures before and after, as HTML; "" without any."""
    if picture is None or all(look.before is None and look.after is None for look in looks):
        return ""
    longest = max(len(maps) for look in looks for maps in (look.before, look.after) if maps is not None)
    together = [looks] if longest <= SHORT else [[look] for look in looks]  # a long strip takes the whole width
    grids = "".join(_grid(some, picture, labels, thumbnails, longest > 1) for some in together)
    return f"<h4>where words look in the {noun}</h4>{grids}"


def _grid(
    looks: Sequence[WordLook], picture: Picture, labels: tuple[str, str], thumbnails: Thumbnails, strips: bool
) -> str:
    """A column for each word, and a row each for before and after."""
    rows = ""
    for label, sides in (
        (labels[0], [(look.word, look.before, look.frames_before) for look in looks]),
        (labels[1], [(look.word, look.after, look.frames_after) for look in looks]),
    ):
        if any(maps is not None for _, maps, _ in sides):
            cells = [
                "<span></span>" if maps is None else _cell(picture, word, maps, shares, label, thumbnails)
                for word, maps, shares in sides
            ]
            rows += f"<span>{escape(label.partition(' · ')[0])}</span>{''.join(cells)}"
    words = "".join(f"<b>{escape(look.word)}</b>" for look in looks)
    kind = "looks strips" if strips else "looks"
    return f'<div class="{kind}" style="--n:{len(looks)}"><span></span>{words}{rows}</div>'


def _cell(
    picture: Picture, word: str, maps: np.ndarray, shares: Sequence[float], label: str, thumbnails: Thumbnails
) -> str:
    source = thumbnails.lit(picture, maps, spotlights)
    spoken = f"where “{word}” looks {label.partition(' · ')[0]}"
    shown = f'<img src="{source}" alt="{escape(spoken)}">' if source else '<span class="gone">no picture</span>'
    return f"<span>{shown}{frame_labels([f'{100 * share:.0f}%' for share in shares])}</span>"


def frame_labels(texts: Sequence[str]) -> str:
    """A text below each frame of a strip, as HTML; "" without any."""
    return f'<span class="by-frame">{"".join(f"<i>{text}</i>" for text in texts)}</span>' if texts else ""
