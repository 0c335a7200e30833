"""Three ways to the frames of a video file.

Small files are read once, their packets held, and only what the wanted frames need is decoded: from the keyframe
before each of them. Large files are sought in. Where timestamps are missing or broken, frames are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
from PIL import Image

from uniadapter.data.media.files import said
from uniadapter.data.media.libav import (
    BROKEN,
    MOST_DECODED,
    RANDOM_ACCESS,
    SKIPPABLE,
    DecodingError,
    Developer,
    Reader,
    entry,
)
from uniadapter.data.media.limits import TooLarge
from uniadapter.data.media.timeline import LONGEST_SHOWN, Entry, Span, places, spans, wanted_times

Numbered = Iterator[tuple[int, av.Packet]]


def decode_clip(path: Path, positions: Sequence[float], at_least: int) -> list[Image.Image | None]:
    """The frames at these positions, upright RGB; None for those that could not be decoded.

    Args:
        path: a regular file.
        positions: from `timeline.draw_positions`.
        at_least: frames are scaled down until one side is about this long, the other longer; 0 keeps them.

    Raises:
        DecodingError: nothing can be decoded, or not in time.
        TooLarge: its frames have more pixels than is allowed.
    """
    reader = None
    try:
        reader = Reader(path)
        return _decode(reader, positions, Developer(at_least, len(positions)))
    except TooLarge:
        raise
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({said(error)})", "corrupt video") from None
    finally:
        if reader is not None:
            reader.close()


def _decode(reader: Reader, positions: Sequence[float], develop: Developer) -> list[Image.Image | None]:
    if reader.large and (sought := _by_seeking(reader, positions, develop)) is not None:
        return sought
    entries = [entry(packet) for packet in reader.packets()]
    if not entries:
        raise DecodingError("has a video stream without a frame", "empty video")
    times = wanted_times(entries, positions, reader.second)
    if times is not None:
        timed = _by_time(reader, entries, times, develop)
        if any(timed):
            return timed
    return _by_number(reader, positions, sum(entry.shown for entry in entries), develop)


def _by_time(reader: Reader, entries: list[Entry], times: list[int], develop: Developer) -> list[Image.Image | None]:
    """Decode from keyframes; if a frame is then missing, once more from the beginning."""
    taken: dict[int, Image.Image] = {}
    for from_keys in (True, False) if reader.codec in RANDOM_ACCESS else (False,):
        plan = spans(entries, times, from_keys)
        numbered, exact = enumerate(reader.packets()), True
        for span in plan:
            for pts, frame in _shown(reader, numbered, span, in_full=not from_keys):
                picture = None if frame is None else develop(frame)
                exact = exact and frame is not None and frame.pts == pts
                if picture is not None:
                    taken[pts] = picture
        if exact or (len(plan) == 1 and plan[0].first == 0 and reader.codec not in SKIPPABLE):
            break
    return [taken.get(pts) for pts in times]


def _shown(reader: Reader, numbered: Numbered, span: Span, in_full: bool) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """(timestamp, the frame shown then) of a span; with damage an earlier frame, None if there is none."""
    wanted = list(span.wanted)
    before: av.VideoFrame | None = None
    reader.restart()
    for frame in _frames(reader, numbered, span, in_full):
        if frame.pts is None:
            continue
        while wanted and frame.pts > wanted[0]:
            yield wanted.pop(0), before
        before = frame
        if wanted and frame.pts == wanted[0]:
            yield wanted.pop(0), frame
        if not wanted:
            return
    for pts in wanted:
        yield pts, before


def _frames(reader: Reader, numbered: Numbered, span: Span, in_full: bool) -> Iterator[av.VideoFrame]:
    """The decoder's output for a span, in the order shown."""
    for number, packet in numbered:
        if number >= span.first:
            yield from reader.decode(packet, in_full or number in span.packets)
        if number >= span.last:
            break
    yield from reader.decode(None)


def _by_number(reader: Reader, positions: Sequence[float], total: int, develop: Developer) -> list[Image.Image | None]:
    """Count frames: of `total`, or of those that come out, when that is another number."""
    for _ in range(2):
        numbers = places(total, positions)
        seen, taken = 0, dict[int, Image.Image | None]()
        reader.restart()
        for packet in _and_end(reader.packets()):
            for frame in reader.decode(packet):
                if seen in numbers:
                    taken[seen] = develop(frame)
                seen += 1
        if not seen:
            raise reader.fruitless()
        if seen == total:
            break
        total = seen
    return [taken.get(number) for number in numbers]


def _by_seeking(reader: Reader, positions: Sequence[float], develop: Developer) -> list[Image.Image | None] | None:
    """The frames of a large file; None if it must be read from end to end."""
    try:
        edges = _edges(reader) if reader.codec in RANDOM_ACCESS else None
        if edges is None:
            return None
        begin, end = edges
        pictures: list[Image.Image | None] = []
        for position in positions:
            frame = _frame_at(reader, begin, int(begin + position * (end - begin) / len(positions)))
            if frame is None:
                return None
            pictures.append(develop(frame))
        return pictures
    except av.FFmpegError:  # cannot be sought in
        return None


def _edges(reader: Reader) -> tuple[int, int] | None:
    """When the first frame is shown and when the last one ends, by its packets, not by the header."""
    if reader.claimed is None:
        return None
    first = [packet for _, packet in zip(range(32), reader.packets(), strict=False)]
    starts = [packet.pts for packet in first if packet.pts is not None and entry(packet).shown]
    if not starts:
        return None
    reader.seek(min(starts) + reader.claimed)
    last = None
    for number, packet in enumerate(reader.here()):
        if packet.pts is None or number >= MOST_DECODED:
            return None
        if entry(packet).shown and (last is None or packet.pts > last.pts):
            last = packet
    if last is None or not last.duration or last.pts < min(starts):
        return None
    return min(starts), last.pts + last.duration


def _frame_at(reader: Reader, begin: int, ticks: int) -> av.VideoFrame | None:
    """The frame shown at a time; None if it cannot be had."""
    for seconds in (0, 2, 10, 60):  # some containers seek too far
        reader.seek(max(ticks - int(seconds * reader.second), begin))
        packets = iter(reader.here())
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is not None and first.pts is not None and first.pts <= ticks:
            break
    else:
        return None
    before: av.VideoFrame | None = None
    for packet in _and_end(packets, first):
        for frame in reader.decode(packet):
            if frame.pts is None or (before and frame.pts - before.pts > LONGEST_SHOWN * reader.second):
                return None
            if frame.pts > ticks:
                return before
            before = frame
    return before


def _and_end(packets: Iterator[av.Packet], *first: av.Packet) -> Iterator[av.Packet | None]:
    """These packets, then None, which makes the decoder give out the rest."""
    yield from first
    yield from packets
    yield None
