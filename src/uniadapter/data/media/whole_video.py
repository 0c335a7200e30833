"""A video from its first frame to its last: whether it is all there, as its header promises, and can be decoded."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from uniadapter.data.media.pyav_reader import BROKEN, DecodingError, Reader

_FRAMES = 0.97  # of the promised ones that must be there: a header may count one that is not shown
_SECONDS = 0.95  # of the promised length: where a stream states none of its own, the sound's may be longer
_LEAST = 1.0  # seconds that must be lacking then
_DECODED = 0.95  # of a clip that was cut without encoding it anew, the first frames cannot be decoded


@dataclass(frozen=True)
class WholeVideo:
    """What was found in a video file.

    Args:
        seconds: its length by its header; None if that does not say.
        ends_early: packets are lacking at its end, as after a download that broke off.
        decoded: share of the packets that can be decoded without an error; None if there are too many to try.
    """

    seconds: float | None
    ends_early: bool
    decoded: float | None

    @property
    def is_broken_inside(self) -> bool:
        """Whether more of it cannot be decoded than of a video that is merely cut."""
        return self.decoded is not None and self.decoded < _DECODED


def look_through(path: Path) -> WholeVideo:
    """Read all packets of a video and decode all frames, one after the other.

    A container without a header, as a raw stream, promises nothing, so that its end is not looked for.

    Raises:
        DecodingError: it is not a video that can be read.
    """
    reader = None
    try:
        reader = Reader(path)
        try:
            return WholeVideo(reader.header_seconds, _ends_early(reader), _decoded_share(reader))
        except DecodingError:  # too many packets, of which a run decodes those that it needs
            return WholeVideo(reader.header_seconds, ends_early=False, decoded=None)
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({error})", "corrupt video") from None
    finally:
        if reader is not None:
            reader.close()


def _ends_early(reader: Reader) -> bool:
    seconds = reader.header_seconds
    packets, first, last = 0, math.inf, -math.inf
    for packet in reader.packets():
        packets += 1
        if packet.pts is not None:
            first, last = min(first, packet.pts), max(last, packet.pts + (packet.duration or 0))
    if reader.header_frames or seconds is None or last < first:
        return packets < _FRAMES * reader.header_frames
    return (last - first) / reader.ticks_per_second < min(_SECONDS * seconds, seconds - _LEAST)


def _decoded_share(reader: Reader) -> float | None:
    """Share of the packets that are decoded without an error; None if it takes too long.

    Frames are not counted: a packet may hold a half one, or one that is not shown.
    """
    packets, corrupt = 0, 0
    try:
        for packet in itertools.chain(reader.packets(), [None]):
            packets += packet is not None
            corrupt += sum(frame.is_corrupt for frame in reader.decode(packet))
    except DecodingError:
        return None
    return 1 - (corrupt + reader.failed) / max(1, packets)
