"""Decoding of selected frames of a video file, in one of three ways.

Small files are read once and their packets kept; only the packets from the keyframe before each requested frame are
decoded. In large files we seek. If timestamps are missing or wrong, all frames are decoded and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
from PIL import Image

from uniadapter.data.media.frame_converter import FrameConverter
from uniadapter.data.media.frame_times import (
    MAX_FRAME_SECONDS,
    PacketInfo,
    PacketSpan,
    frame_indices,
    frame_timestamps,
    packet_spans,
)
from uniadapter.data.media.limits import TooLarge
from uniadapter.data.media.paths import error_text
from uniadapter.data.media.pyav_reader import (
    BROKEN,
    MAX_DECODED_PACKETS,
    RANDOM_ACCESS,
    SKIPPABLE,
    DecodingError,
    Reader,
    packet_info,
)

Numbered = Iterator[tuple[int, av.Packet]]


def clip_seconds(path: Path) -> float | None:
    """The length of a video file in seconds, by its header; None if that does not say."""
    reader = None
    try:
        reader = Reader(path)
        return reader.header_seconds
    except BROKEN:
        return None
    finally:
        if reader is not None:
            reader.close()


def decode_clip(path: Path, positions: Sequence[float], min_side: int) -> list[Image.Image | None]:
    """The frames at these positions, upright RGB; None for those that could not be decoded.

    Args:
        path: a regular file.
        positions: from `frame_times.sample_positions`.
        min_side: frames are scaled down until their shorter side has about this many pixels; 0 keeps the full size.

    Raises:
        DecodingError: nothing can be decoded, or it takes too long.
        TooLarge: its frames have more pixels than allowed.
    """
    reader = None
    try:
        reader = Reader(path)
        return _decode(reader, positions, FrameConverter(min_side, len(positions)))
    except TooLarge:
        raise
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({error_text(error)})", "corrupt video") from None
    finally:
        if reader is not None:
            reader.close()


def _decode(reader: Reader, positions: Sequence[float], convert: FrameConverter) -> list[Image.Image | None]:
    if reader.is_large and (sought := _by_seeking(reader, positions, convert)) is not None:
        return sought
    entries = [packet_info(packet) for packet in reader.packets()]
    if not entries:
        raise DecodingError("has a video stream without a frame", "empty video")
    times = frame_timestamps(entries, positions, reader.ticks_per_second)
    if times is not None:
        timed = _by_time(reader, entries, times, convert)
        if any(timed):
            return timed
    return _by_counting(reader, positions, sum(entry.shown for entry in entries), convert)


def _by_time(
    reader: Reader, entries: list[PacketInfo], times: list[int], convert: FrameConverter
) -> list[Image.Image | None]:
    """Decode from keyframes; if a frame is missing then, decode everything from the beginning."""
    taken: dict[int, Image.Image] = {}
    for from_keys in (True, False) if reader.codec in RANDOM_ACCESS else (False,):
        plan = packet_spans(entries, times, from_keys)
        numbered, exact = enumerate(reader.packets()), True
        for span in plan:
            for pts, frame in _frames_at(reader, numbered, span, in_full=not from_keys):
                picture = None if frame is None else convert(frame)
                exact = exact and frame is not None and frame.pts == pts
                if picture is not None:
                    taken[pts] = picture
        if exact or (len(plan) == 1 and plan[0].first == 0 and reader.codec not in SKIPPABLE):
            break
    return [taken.get(pts) for pts in times]


def _frames_at(
    reader: Reader, numbered: Numbered, span: PacketSpan, in_full: bool
) -> Iterator[tuple[int, av.VideoFrame | None]]:
    """Yield (timestamp, frame) of a span; if that frame is corrupt, an earlier one, or None."""
    wanted = list(span.timestamps)
    before: av.VideoFrame | None = None
    reader.flush()
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


def _frames(reader: Reader, numbered: Numbered, span: PacketSpan, in_full: bool) -> Iterator[av.VideoFrame]:
    """The decoder's output for a span, in display order."""
    for number, packet in numbered:
        if number >= span.first:
            yield from reader.decode(packet, in_full or number in span.packets)
        if number >= span.last:
            break
    yield from reader.decode(None)


def _by_counting(
    reader: Reader, positions: Sequence[float], total: int, convert: FrameConverter
) -> list[Image.Image | None]:
    """Select frames by number, of `total` or, if the decoder returns another number of frames, of that number."""
    for _ in range(2):
        numbers = frame_indices(total, positions)
        seen, taken = 0, dict[int, Image.Image | None]()
        reader.flush()
        for packet in _then_flush(reader.packets()):
            for frame in reader.decode(packet):
                if seen in numbers:
                    taken[seen] = convert(frame)
                seen += 1
        if not seen:
            raise reader.nothing_decoded_error()
        if seen == total:
            break
        total = seen
    return [taken.get(number) for number in numbers]


def _by_seeking(reader: Reader, positions: Sequence[float], convert: FrameConverter) -> list[Image.Image | None] | None:
    """The frames of a large file by seeking; None if it must be decoded completely."""
    try:
        edges = _time_range(reader) if reader.codec in RANDOM_ACCESS else None
        if edges is None:
            return None
        begin, end = edges
        pictures: list[Image.Image | None] = []
        for position in positions:
            frame = _frame_at(reader, begin, int(begin + position * (end - begin) / len(positions)))
            if frame is None:
                return None
            pictures.append(convert(frame))
        return pictures
    except av.FFmpegError:  # not seekable
        return None


def _time_range(reader: Reader) -> tuple[int, int] | None:
    """Start of the first frame and end of the last one, in ticks, from the packets, since headers may be wrong."""
    if reader.header_duration is None:
        return None
    first = [packet for _, packet in zip(range(32), reader.packets(), strict=False)]
    starts = [packet.pts for packet in first if packet.pts is not None and packet_info(packet).shown]
    if not starts:
        return None
    reader.seek(min(starts) + reader.header_duration)
    last = None
    for number, packet in enumerate(reader.remaining_packets()):
        if packet.pts is None or number >= MAX_DECODED_PACKETS:
            return None
        if packet_info(packet).shown and (last is None or packet.pts > last.pts):
            last = packet
    if last is None or not last.duration or last.pts < min(starts):
        return None
    return min(starts), last.pts + last.duration


def _frame_at(reader: Reader, begin: int, ticks: int) -> av.VideoFrame | None:
    """The frame shown at a time; None if it cannot be decoded."""
    for seconds in (0, 2, 10, 60):  # in some containers a seek ends too late
        reader.seek(max(ticks - int(seconds * reader.ticks_per_second), begin))
        packets = iter(reader.remaining_packets())
        first = next((packet for packet in packets if packet.is_keyframe), None)
        if first is not None and first.pts is not None and first.pts <= ticks:
            break
    else:
        return None
    before: av.VideoFrame | None = None
    for packet in _then_flush(packets, first):
        for frame in reader.decode(packet):
            if frame.pts is None or (before and frame.pts - before.pts > MAX_FRAME_SECONDS * reader.ticks_per_second):
                return None
            if frame.pts > ticks:
                return before
            before = frame
    return before


def _then_flush(packets: Iterator[av.Packet], *first: av.Packet) -> Iterator[av.Packet | None]:
    """These packets, then None, which flushes the decoder."""
    yield from first
    yield from packets
    yield None
