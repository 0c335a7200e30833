"""Selection of a video's frames, and of the packets to decode for them; no decoding here.

A clip of `count` frames is sampled at `count` positions: position p in [i, i + 1) lies in the i-th of `count` equal
segments. Positions are converted to times if a video's timestamps are valid, else to frame indices; with a constant
frame rate both select the same frames.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# A longer gap between two frames is taken as an invalid timestamp, since that frame would fill the whole clip.
MAX_FRAME_SECONDS = 600.0  # seconds
# Maximum distance between storage and display order, in frames (H.264 and HEVC allow 16).
_MAX_REORDER = 32


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """A packet's entry in the container.

    Args:
        pts: presentation timestamp of its frame, in ticks; None if unknown.
        duration: of its frame, in ticks; 0 if unknown.
        is_keyframe: decoding can start here.
        shown: its frame is displayed, not only a reference of others.
    """

    pts: int | None
    duration: int
    is_keyframe: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class PacketSpan:
    """Consecutive packets to decode.

    Args:
        first: index of the first packet, a keyframe or 0.
        last: index of the last packet.
        timestamps: of the frames to take, ascending, each once.
        packets: indices of the packets with these frames.
    """

    first: int
    last: int
    timestamps: tuple[int, ...]
    packets: frozenset[int]


def sample_positions(count: int, rng: random.Random | None) -> list[float]:
    """One position in each of `count` segments: its middle, or a uniform one by exactly `count` numbers of `rng`."""
    return [index + (0.5 if rng is None else rng.random()) for index in range(count)]


def frame_indices(total: int, positions: Sequence[float]) -> list[int]:
    """Frame indices in [0, total) of these positions, for frames of equal duration."""
    count = len(positions)
    return [min(int(position * total / count), total - 1) for position in positions]


def frame_indices_by_time(starts: Sequence[int], end: int, positions: Sequence[float]) -> list[int]:
    """Frame indices of these positions, by display time.

    Args:
        starts: start of each frame, ascending.
        end: end of the last one, in the same unit.
        positions: from `sample_positions`.
    """
    begin, count = starts[0], len(positions)
    times = [begin + position * (end - begin) / count for position in positions]
    return [max(bisect_right(starts, time) - 1, 0) for time in times]


def frame_timestamps(entries: Sequence[PacketInfo], positions: Sequence[float], second: float) -> list[int] | None:
    """Timestamps of the frames shown at these positions; None if the file's timestamps are invalid.

    Args:
        entries: all packets, in file order.
        positions: from `sample_positions`.
        second: ticks per second.
    """
    stamps = [entry.pts for entry in entries if entry.shown]
    starts = sorted(pts for pts in stamps if pts is not None)
    if not starts or len(set(starts)) < len(stamps):
        return None
    rank = {pts: place for place, pts in enumerate(starts)}
    if any(abs(rank[pts] - place) > _MAX_REORDER for place, pts in enumerate(stamps) if pts is not None):
        return None
    gaps = sorted(after - before for before, after in pairwise(starts))
    longest = MAX_FRAME_SECONDS * second
    if gaps and gaps[-1] > longest:
        return None
    last = next(entry.duration for entry in entries if entry.shown and entry.pts == starts[-1])
    if not 0 < last <= longest:
        last = gaps[len(gaps) // 2] if gaps else 1
    return [starts[place] for place in frame_indices_by_time(starts, starts[-1] + last, positions)]


def packet_spans(entries: Sequence[PacketInfo], wanted: Sequence[int], from_keys: bool) -> list[PacketSpan]:
    """The packets to decode: from a keyframe to the last requested frame after it; overlapping spans are merged.

    Args:
        entries: all packets, in file order.
        wanted: from `frame_timestamps`.
        from_keys: start at keyframes; else everything is decoded from the first packet.
    """
    holder = {entry.pts: number for number, entry in enumerate(entries) if entry.shown}
    keys = [number for number, entry in enumerate(entries) if entry.is_keyframe and entry.pts is not None]
    found: list[PacketSpan] = []
    for pts, last in sorted(((pts, holder[pts]) for pts in set(wanted)), key=lambda pair: pair[1]):
        first = _start(entries, keys, pts, last) if from_keys else 0
        stamps, packets = {pts}, {last}
        while found and first <= found[-1].last:
            before = found.pop()
            first = min(first, before.first)
            stamps.update(before.timestamps)
            packets |= before.packets
        found.append(PacketSpan(first, last, tuple(sorted(stamps)), frozenset(packets)))
    return found


def _start(entries: Sequence[PacketInfo], keys: Sequence[int], pts: int, last: int) -> int:
    """Index of the keyframe to start at.

    A frame that is stored after a keyframe but displayed before it may reference earlier frames, and needs an earlier
    keyframe.
    """
    for number in reversed(keys[: bisect_right(keys, last)]):
        stamp = entries[number].pts
        if stamp is not None and stamp <= pts:
            return number
    return 0
