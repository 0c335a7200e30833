"""Which frames of a video to take, and which packets must be decoded to have them: arithmetic, no decoding.

A clip of `count` frames is taken at `count` positions: position p in [i, i + 1) lies in the i-th of `count` equal
segments. Positions become times where a video's timestamps can be trusted, and frame numbers where they cannot; on
a constant frame rate both choose the same frames.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A picture shown for longer is a broken timestamp rather than a slide: it would fill the whole clip.
LONGEST_SHOWN = 600.0  # seconds
# Frames are stored at most this far from where they are shown (H.264 and HEVC allow 16).
_FARTHEST_REORDERED = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """What a container says of one packet.

    Args:
        pts: when its frame is shown, in ticks of the stream; None if it doesn't say.
        duration: for how many ticks; 0 if it doesn't say.
        key: decoding can start here.
        shown: its frame is shown, rather than only needed by others.
    """

    pts: int | None
    duration: int
    key: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Packets to decode in one go.

    Args:
        first: number of the first packet, one that decoding can start at.
        last: number of the last.
        wanted: timestamps to take frames at, ascending, each once.
        packets: numbers of the packets that hold these frames.
    """

    first: int
    last: int
    wanted: tuple[int, ...]
    packets: frozenset[int]


def draw_positions(count: int, rng: random.Random | None) -> list[float]:
    """One position in each of `count` segments: its middle, or drawn uniformly; takes `count` draws, always."""
    return [index + (0.5 if rng is None else rng.random()) for index in range(count)]


def places(total: int, positions: Sequence[float]) -> list[int]:
    """Positions as frame numbers in [0, total)."""
    count = len(positions)
    return [min(int(position * total / count), total - 1) for position in positions]


def shown_at(starts: Sequence[int], end: int, positions: Sequence[float]) -> list[int]:
    """Positions as frame numbers, by time.

    Args:
        starts: when each frame begins to be shown, ascending.
        end: when the last one ends.
        positions: from `draw_positions`.
    """
    begin, count = starts[0], len(positions)
    times = [begin + position * (end - begin) / count for position in positions]
    return [max(bisect_right(starts, time) - 1, 0) for time in times]


def wanted_times(entries: Sequence[Entry], positions: Sequence[float], second: float) -> list[int] | None:
    """Timestamps of the frames shown at these positions; None if the timestamps cannot be trusted.

    Args:
        entries: all packets, in the order of the file.
        positions: from `draw_positions`.
        second: ticks of a second.
    """
    stamps = [entry.pts for entry in entries if entry.shown]
    starts = sorted(pts for pts in stamps if pts is not None)
    if not starts or len(set(starts)) < len(stamps):
        return None
    rank = {pts: place for place, pts in enumerate(starts)}
    if any(abs(rank[pts] - place) > _FARTHEST_REORDERED for place, pts in enumerate(stamps) if pts is not None):
        return None
    gaps = sorted(after - before for before, after in pairwise(starts))
    longest = LONGEST_SHOWN * second
    if gaps and gaps[-1] > longest:
        return None
    last = next(entry.duration for entry in entries if entry.shown and entry.pts == starts[-1])
    if not 0 < last <= longest:
        last = gaps[len(gaps) // 2] if gaps else 1
    return [starts[place] for place in shown_at(starts, starts[-1] + last, positions)]


def spans(entries: Sequence[Entry], wanted: Sequence[int], from_keys: bool) -> list[Span]:
    """The packets to decode, from a keyframe to the last frame wanted after it; spans that meet are one.

    Args:
        entries: all packets, in the order of the file.
        wanted: timestamps, from `wanted_times`.
        from_keys: start at keyframes; else everything is decoded from the first packet.
    """
    holder = {entry.pts: number for number, entry in enumerate(entries) if entry.shown}
    keys = [number for number, entry in enumerate(entries) if entry.key and entry.pts is not None]
    found: list[Span] = []
    for pts, last in sorted(((pts, holder[pts]) for pts in set(wanted)), key=lambda pair: pair[1]):
        first = _start(entries, keys, pts, last) if from_keys else 0
        stamps, packets = {pts}, {last}
        while found and first <= found[-1].last:
            before = found.pop()
            first = min(first, before.first)
            stamps.update(before.wanted)
            packets |= before.packets
        found.append(Span(first, last, tuple(sorted(stamps)), frozenset(packets)))
    return found


def _start(entries: Sequence[Entry], keys: Sequence[int], pts: int, last: int) -> int:
    """The keyframe to start at.

    A frame that is stored after a keyframe but shown before it may refer to what came earlier, and needs the
    keyframe before.
    """
    for number in reversed(keys[: bisect_right(keys, last)]):
        stamp = entries[number].pts
        if stamp is not None and stamp <= pts:
            return number
    return 0
