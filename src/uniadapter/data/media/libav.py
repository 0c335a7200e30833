"""A video file by PyAV: its packets, its decoder, its frames as pictures. The only file that knows PyAV's ways.

Everything is bounded: time, packets, pixels of a frame, bytes held, threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from uniadapter.data.media.display_matrix import display_matrix, upright
from uniadapter.data.media.limits import (
    MOST_CLIP_PIXELS,
    MOST_FRAME_PIXELS,
    PIXELS_SETTING,
    allowed_pixels,
    check_pixels,
)
from uniadapter.data.media.timeline import Entry

# Of the decoding thread: on a busy machine the same videos can be read as on an idle one.
PROCESSOR_SECONDS = 20.0
WALL_SECONDS = 60.0
# So many packets are decoded for one clip at most; half an hour at 30 frames a second without a keyframe.
MOST_DECODED = 54_000
# So many are listed: nine hours at 30 frames a second.
MOST_PACKETS = 1_000_000
# Files up to this size are held in memory while they are decoded; larger ones are sought in.
HELD_BYTES = 64 * 2**20

# Demuxers of containers and raw streams. Left out are those that open other files or addresses (playlists).
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
# Codecs that can be trusted to decode alike from any packet that is marked as a keyframe; the others start at 0.
RANDOM_ACCESS = frozenset(
    {
        "h264", "hevc", "av1", "libdav1d", "vp8", "libvpx", "vp9", "libvpx-vp9", "mpeg1video", "mpeg2video", "mpeg4",
        "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "flv", "h263", "mjpeg", "prores", "theora",
    }
)  # fmt: skip
# Codecs in which no frame is made from one that is marked as nobody's reference. Not HEVC: its marks hold only
# within one temporal layer.
SKIPPABLE = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
_DEMUX_ERRORS = 16
# Whatever PyAV was seen or is documented to raise on broken files.
BROKEN = (
    av.FFmpegError, OSError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError,
    AttributeError, RuntimeError,
)  # fmt: skip


class DecodingError(Exception):
    """A file that no frame can be had from.

    Args:
        reason: why, for the sentence "video X REASON".
        kind: as of a `DataError`.
        remedy: what to do, for the end of the sentence.
    """

    def __init__(self, reason: str, kind: str, remedy: str = "replace it") -> None:
        super().__init__(reason)
        self.reason, self.kind, self.remedy = reason, kind, remedy


class Deadline:
    """The time that one clip may take; create it in the thread that decodes."""

    def __init__(self) -> None:
        self._processor = time.thread_time() + PROCESSOR_SECONDS
        self._wall = time.monotonic() + WALL_SECONDS

    def check(self) -> None:
        """Raise `DecodingError` when it has passed."""
        if time.thread_time() > self._processor:
            raise too_long(f"{PROCESSOR_SECONDS:g} s")
        if time.monotonic() > self._wall:
            raise too_long(f"{WALL_SECONDS:g} s")

    @property
    def left(self) -> float:
        """Seconds left, by the clock on the wall."""
        return max(self._wall - time.monotonic(), 0.01)


def too_long(limit: str) -> DecodingError:
    """The error for a video that exceeds a limit."""
    remedy = "encode it smaller or with more keyframes"
    return DecodingError(f"takes more than {limit} to decode", "too long to decode", remedy)


class Reader:
    """The packets of a file's video stream and their decoder.

    Args:
        path: the file.

    Attributes:
        large: the file is too large to be held.
        deadline: when this must be done.
    """

    def __init__(self, path: Path) -> None:
        self.large = path.stat().st_size > HELD_BYTES
        self.deadline = Deadline()
        self._path, self._held, self._fed = path, list[av.Packet](), 0
        self._open()

    @property
    def second(self) -> float:
        """Ticks of a second."""
        return float(1 / (self._stream.time_base or Fraction(1, 1000)))

    @property
    def claimed(self) -> int | None:
        """Ticks that the header says the stream is long; None if it doesn't say."""
        if self._stream.duration:
            return int(self._stream.duration)
        return int(self._container.duration / 1e6 * self.second) if self._container.duration else None

    @property
    def codec(self) -> str:
        """The decoder's name."""
        return str(self._decoder.name)

    def packets(self) -> Iterator[av.Packet]:
        """All packets from the beginning; a file that is not held is opened anew."""
        if self._held:
            yield from self._held
            return
        if not self._fresh:
            self.close()
            self._open()
        held: list[av.Packet] = []
        for packet in self.here():
            if not self.large:
                held.append(packet)
            yield packet
        self._held = held

    def here(self) -> Iterator[av.Packet]:
        """The packets from where the container stands; damage is stepped over."""
        self._fresh = False
        count = 0
        for _ in range(_DEMUX_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    self.deadline.check()
                    count += 1
                    if count > MOST_PACKETS:
                        raise too_long(f"{MOST_PACKETS} packets")
                    if packet.size:  # the last is empty
                        yield packet
                return
            except av.ExitError:
                raise too_long(f"{WALL_SECONDS:g} s") from None
            except EOFError:
                return
            except av.FFmpegError:
                continue

    def seek(self, ticks: int) -> None:
        """Go to the last keyframe at or before a time, as far as the container knows."""
        self._fresh = False
        self._container.seek(ticks, stream=self._stream, backward=True)
        self.restart()

    def restart(self) -> None:
        """Forget the frames before: what comes next starts at a keyframe."""
        self._decoder.flush_buffers()

    def decode(self, packet: av.Packet | None, in_full: bool = True) -> list[av.VideoFrame]:
        """The frames that a packet completes, None at the end; broken ones are left out.

        Args:
            packet: the next packet, or None.
            in_full: else frames that no other is made from may be left out.
        """
        self.deadline.check()
        self._fed += 1
        if self._fed > MOST_DECODED:
            raise too_long(f"{MOST_DECODED} packets")
        if self.codec in SKIPPABLE:
            self._decoder.skip_frame = "DEFAULT" if in_full else "NONREF"
        try:
            return list(self._decoder.decode(packet))
        except (av.FFmpegError, EOFError):
            return []

    def fruitless(self) -> DecodingError:
        """The error for a stream of which nothing could be decoded."""
        if self._decoder.width:
            return DecodingError("has no frame that can be decoded", "corrupt video")
        most = allowed_pixels(MOST_FRAME_PIXELS)  # libav forgets a size above it
        reason = f"has no frame that can be decoded, or frames of more than {most} pixels"
        return DecodingError(reason, "corrupt video", f"replace it, save it smaller, or set {PIXELS_SETTING}")

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        left, most = self.deadline.left, str(allowed_pixels(MOST_FRAME_PIXELS))
        try:
            # The prefix keeps a name with a colon from being read as a protocol.
            self._container = av.open(
                f"file:{self._path.absolute()}", "r", options={**_OPTIONS, "max_pixels": most},
                metadata_errors="replace", timeout=(left, left),
            )  # fmt: skip
        except av.ExitError:
            raise too_long(f"{WALL_SECONDS:g} s") from None
        try:
            self._stream = _video_stream(self._container)
        except BaseException:
            self._container.close()
            raise
        self._decoder = self._stream.codec_context
        check_pixels(self._decoder.width, self._decoder.height, MOST_FRAME_PIXELS)
        self._decoder.thread_count, self._decoder.thread_type = 1, "NONE"  # the loader has workers
        self._decoder.options = {"max_pixels": most}
        self._fresh = True


class Developer:
    """From decoded frames to pictures.

    Args:
        at_least: as of `decode_clip`.
        count: frames of the clip.
    """

    def __init__(self, at_least: int, count: int = 1) -> None:
        self._at_least, self._most, self._reformatter = at_least, MOST_CLIP_PIXELS // count, VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Image.Image | None:
        """Upright RGB, transparent parts white; None if the pixels cannot be converted."""
        width, height = shrunk(frame.width, frame.height, self._at_least, self._most)
        see_through = any(component.is_alpha for component in frame.format.components)
        try:
            converted = self._reformatter.reformat(
                frame, width, height, "rgba" if see_through else "rgb24",
                interpolation="BILINEAR" if width == frame.width else "BICUBIC", threads=1,
            )  # fmt: skip
            picture = on_white(Image.fromarray(converted.to_ndarray())) if see_through else converted.to_image()
            return upright(picture, display_matrix(frame))
        except BROKEN:
            return None


def shrunk(width: int, height: int, at_least: int, most: int = MOST_CLIP_PIXELS) -> tuple[int, int]:
    """The smallest size of this shape with both sides at least so long; never larger than it is.

    With `at_least` 0, the largest of at most so many pixels.
    """
    scale = at_least / max(min(width, height), 1) if at_least else math.sqrt(most / max(width * height, 1))
    return (width, height) if scale >= 1 else (max(round(width * scale), 1), max(round(height * scale), 1))


def on_white(picture: Image.Image) -> Image.Image:
    """A transparent picture as RGB on white."""
    layers = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, (255, 255, 255, 255)), layers).convert("RGB")


def entry(packet: av.Packet) -> Entry:
    """What the timeline wants to know of a packet."""
    return Entry(packet.pts, packet.duration or 0, bool(packet.is_keyframe), not packet.is_discard)


def _video_stream(container: InputContainer) -> VideoStream:
    """The first video stream that is no cover picture and has a decoder."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        raise DecodingError("has no video stream", "no video stream")
    decodable = [stream for stream in videos if stream.codec_context is not None]
    if not decodable:
        raise DecodingError("is encoded in a way that PyAV has no decoder for", "corrupt video")
    return decodable[0]
