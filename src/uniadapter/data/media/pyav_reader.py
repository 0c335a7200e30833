"""Reading of video files by PyAV: packets and decoder.

Time, packets, pixels per frame, memory and threads are limited.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from uniadapter.data.media.frame_times import PacketInfo
from uniadapter.data.media.limits import (
    MAX_FRAME_PIXELS,
    PIXELS_SETTING,
    allowed_pixels,
    check_pixels,
)

# CPU time of the decoding thread, so that a busy machine can read the same videos as an idle one.
PROCESSOR_SECONDS = 20.0
WALL_SECONDS = 60.0
# Decoded per clip: half an hour at 30 frames per second without a keyframe.
MAX_DECODED_PACKETS = 54_000
# Read per file: nine hours at 30 frames per second.
MAX_PACKETS = 1_000_000
# Files up to this size are kept in memory while they are decoded; in larger ones we seek.
MAX_HELD_BYTES = 64 * 2**20

# Allowed demuxers: containers and raw streams, but none that open other files or URLs (playlists).
_FORMATS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,ogg,gif,apng,rm,nut,mxf,wtv,dv,"
    "vc1,h263,h261,yuv4mpegpipe,swf,wav,mp3,aac,flac,ac3,eac3,aiff,caf,amr,au"
)
_OPTIONS = {
    "format_whitelist": _FORMATS,
    "protocol_whitelist": "file",
    "probesize": str(5 * 2**20),
    "analyzeduration": "2000000",  # microseconds
}
# Of titles that are not UTF-8, which no one reads here: before PyAV 19, `open` fails on them unless told otherwise.
_METADATA: dict[str, Any] = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
# Codecs that decode correctly from any packet marked as a keyframe; others are decoded from the beginning.
RANDOM_ACCESS = frozenset(
    {
        "h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg1video", "mpeg2video", "mpeg4",
        "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "flv", "h263", "mjpeg", "prores", "theora",
    }
)  # fmt: skip
# Codecs whose non-reference frames can be skipped. Not HEVC, where the mark holds only within one temporal layer.
SKIPPABLE = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
_DEMUX_ERRORS = 16
# Exceptions that PyAV raises on corrupt files, observed or documented.
BROKEN = (
    av.FFmpegError, OSError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError,
    AttributeError, RuntimeError,
)  # fmt: skip


class DecodingError(Exception):
    """A file from which no frame can be decoded.

    Args:
        reason: why, to follow "video X".
        kind: of the `DataError`.
        remedy: what to do.
    """

    def __init__(self, reason: str, kind: str, remedy: str = "replace it") -> None:
        super().__init__(reason)
        self.reason, self.kind, self.remedy = reason, kind, remedy


class Deadline:
    """Time limit of one clip, by CPU and wall time; create it in the decoding thread."""

    def __init__(self) -> None:
        self._processor = time.thread_time() + PROCESSOR_SECONDS
        self._wall = time.monotonic() + WALL_SECONDS

    def check(self) -> None:
        """Raise `DecodingError` if the limit is exceeded."""
        if time.thread_time() > self._processor:
            raise too_long_error(f"{PROCESSOR_SECONDS:g} s")
        if time.monotonic() > self._wall:
            raise too_long_error(f"{WALL_SECONDS:g} s")

    @property
    def seconds_left(self) -> float:
        """Wall time left, in seconds."""
        return max(self._wall - time.monotonic(), 0.01)


def too_long_error(limit: str) -> DecodingError:
    """The error for a video that exceeds a limit."""
    remedy = "encode it smaller or with more keyframes"
    return DecodingError(f"takes more than {limit} to decode", "too long to decode", remedy)


class Reader:
    """The packets of a file's video stream and their decoder.

    Args:
        path: the file.

    Attributes:
        is_large: the file is too large to keep its packets in memory.
        deadline: time limit.
        failed: number of packets that could not be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.is_large = path.stat().st_size > MAX_HELD_BYTES
        self.deadline = Deadline()
        self._path, self._held, self._fed = path, list[av.Packet](), 0
        self.failed = 0
        self._open()

    @property
    def ticks_per_second(self) -> float:
        """Timestamp ticks per second."""
        return float(1 / (self._stream.time_base or Fraction(1, 1000)))

    @property
    def header_duration(self) -> int | None:
        """Duration of the stream in ticks, according to the header; None if it has none."""
        if self._stream.duration:
            return int(self._stream.duration)
        return int(self._container.duration / 1e6 * self.ticks_per_second) if self._container.duration else None

    @property
    def header_seconds(self) -> float | None:
        """Duration of the stream in seconds, according to the header; None if it has none."""
        ticks = self.header_duration
        return None if ticks is None else ticks / self.ticks_per_second

    @property
    def header_frames(self) -> int:
        """Number of the stream's frames, according to the header; 0 if it does not say."""
        return int(self._stream.frames)

    @property
    def codec(self) -> str:
        """The decoder's name."""
        return str(self._decoder.name)

    def packets(self) -> Iterator[av.Packet]:
        """All packets from the beginning; a large file is opened again."""
        if self._held:
            yield from self._held
            return
        if not self._fresh:
            self.close()
            self._open()
        held: list[av.Packet] = []
        for packet in self.remaining_packets():
            if not self.is_large:
                held.append(packet)
            yield packet
        self._held = held

    def remaining_packets(self) -> Iterator[av.Packet]:
        """The packets from the current position; corrupt ones are skipped."""
        self._fresh = False
        count = 0
        for _ in range(_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    self.deadline.check()
                    count += 1
                    if count > MAX_PACKETS:
                        raise too_long_error(f"{MAX_PACKETS} packets")
                    if packet.size:  # the last is empty
                        yield packet
                return
            except av.ExitError:
                raise too_long_error(f"{WALL_SECONDS:g} s") from None
            except EOFError:
                return
            except av.FFmpegError:
                continue

    def seek(self, ticks: int) -> None:
        """Seek to the last keyframe at or before a time, according to the container's index."""
        self._fresh = False
        self._container.seek(ticks, stream=self._stream, backward=True)
        self.flush()

    def flush(self) -> None:
        """Reset the decoder; the next packet must be a keyframe."""
        self._decoder.flush_buffers()

    def decode(self, packet: av.Packet | None, in_full: bool = True) -> list[av.VideoFrame]:
        """The frames that become available with a packet; corrupt ones are skipped.

        Args:
            packet: the next packet; None flushes the decoder.
            in_full: false allows to skip frames that are not references of others.
        """
        self.deadline.check()
        self._fed += 1
        if self._fed > MAX_DECODED_PACKETS:
            raise too_long_error(f"{MAX_DECODED_PACKETS} packets")
        if self.codec in SKIPPABLE:
            self._decoder.skip_frame = "DEFAULT" if in_full else "NONREF"
        try:
            return list(self._decoder.decode(packet))
        except (av.FFmpegError, EOFError):
            self.failed += packet is not None
            return []

    def nothing_decoded_error(self) -> DecodingError:
        """The error for a stream without a decodable frame."""
        if self._decoder.width:
            return DecodingError("has no frame that can be decoded", "corrupt video")
        most = allowed_pixels(MAX_FRAME_PIXELS)  # libav reports no size above it
        reason = f"has no frame that can be decoded, or frames of more than {most} pixels"
        return DecodingError(reason, "corrupt video", f"replace it, save it smaller, or set {PIXELS_SETTING}")

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        left, most = self.deadline.seconds_left, str(allowed_pixels(MAX_FRAME_PIXELS))
        try:
            # With the prefix, a colon in the name is not read as a protocol.
            self._container = av.open(
                f"file:{self._path.absolute()}", "r", options={**_OPTIONS, "max_pixels": most},
                timeout=(left, left), **_METADATA,
            )  # fmt: skip
        except av.ExitError:
            raise too_long_error(f"{WALL_SECONDS:g} s") from None
        try:
            self._stream = _video_stream(self._container)
        except BaseException:
            self._container.close()
            raise
        self._decoder = self._stream.codec_context
        check_pixels(self._decoder.width, self._decoder.height, MAX_FRAME_PIXELS)
        self._decoder.thread_count, self._decoder.thread_type = 1, "NONE"  # the DataLoader has workers
        self._decoder.options = {"max_pixels": most}
        self._fresh = True


def packet_info(packet: av.Packet) -> PacketInfo:
    """A packet's timestamp, duration and flags."""
    return PacketInfo(packet.pts, packet.duration or 0, bool(packet.is_keyframe), not packet.is_discard)


def _video_stream(container: InputContainer) -> VideoStream:
    """The first video stream with a decoder that is not a cover picture."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        raise DecodingError("has no video stream", "no video stream")
    decodable = [stream for stream in videos if stream.codec_context is not None]
    if not decodable:
        raise DecodingError("has a codec that PyAV cannot decode", "corrupt video")
    return decodable[0]
