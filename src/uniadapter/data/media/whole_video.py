"""A video from its first frame to its last: whether it is all there, as its header promises, and can be decoded."""

from __future__ import annotations

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
        decoded: share of the frames that can be decoded without an error; None if there are too many to try.
    """

    seconds: float | None
    ends_early: bool
    decoded: float | None

    @property
    def is_broken_inside(self) -> bool:
        """Whether more frames cannot be decoded than in videos that are merely cut."""
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
        ticks = reader.header_duration
        seconds = None if ticks is None else ticks / reader.ticks_per_second
        packets = list(reader.packets())
        spans = [(packet.pts, packet.pts + (packet.duration or 0)) for packet in packets if packet.pts is not None]
        ends_early = len(packets) < _FRAMES * reader.header_frames
        if not reader.header_frames and seconds is not None and spans:
            there = (max(end for _, end in spans) - min(start for start, _ in spans)) / reader.ticks_per_second
            ends_early = there < min(_SECONDS * seconds, seconds - _LEAST)
        return WholeVideo(seconds, ends_early, _decoded_share(reader, len(packets)))
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({error})", "corrupt video") from None
    finally:
        if reader is not None:
            reader.close()


def _decoded_share(reader: Reader, packets: int) -> float | None:
    """Decoded frames without an error as a share of the packets; None if it takes too long."""
    good = 0
    try:
        for packet in [*reader.packets(), None]:
            good += sum(not frame.is_corrupt for frame in reader.decode(packet))
    except DecodingError:
        return None
    return good / max(1, packets)
