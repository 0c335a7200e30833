"""Detection of picture and video formats, by content first and by suffix if the content is unknown."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO, Literal

# Suffixes of videos, in the order in which they are tried for a missing file.
VIDEO_SUFFIXES = (
    ".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".ts",
    ".asf", ".f4v", ".m2ts", ".vob", ".qt", ".3g2", ".divx", ".mpe", ".m1v", ".m2v", ".ogm", ".rm", ".rmvb", ".mxf",
    ".dv", ".y4m", ".ivf", ".h264", ".264", ".hevc", ".265", ".nut", ".wtv",
)  # fmt: skip
# Suffixes of pictures, some of which may be animated.
PICTURE_SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
        ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".jxl", ".tga", ".ico", ".qoi", ".psd",
    }
)  # fmt: skip

Kind = Literal["video", "gif", "apng", "webp", "picture", "unknown"]

HEAD = 4096  # bytes read to detect the format
_PICTURE_BRANDS = ("avif", "heic", "heix", "mif1", "heim", "heis")  # picture formats in an MP4 container
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_VIDEO_STARTS = (
    b"\x1a\x45\xdf\xa3", b"FLV", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3",
    b"\x00\x00\x01\xb0", b"\x00\x00\x00\x01\x67", b"\x00\x00\x01\x67", b"\x00\x00\x00\x01\x40\x01",
    b"OggS", b"DKIF", b"YUV4MPEG2", b".RMF", b"\x06\x0e\x2b\x34",
)  # fmt: skip
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6", b"\x00\x00\x00\x0cjP  ")
_NOT_FILES = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)  # fmt: skip
# Files that are not pictures, by their first bytes, and the remedy.
_CONVERT = "convert it to JPEG or PNG"
_UNREADABLE = (
    (b"\xff\x0a", "it is JPEG XL", f"pip install pillow-jxl-plugin, or {_CONVERT}"),
    (b"\x00\x00\x00\x0cJXL ", "it is JPEG XL", f"pip install pillow-jxl-plugin, or {_CONVERT}"),
    (b"%PDF", "it is a PDF", _CONVERT),
    (b"%!PS", "it is PostScript", _CONVERT),
    (b"<svg", "it is SVG", _CONVERT),
    (b"<?xml", "it is XML, or SVG", _CONVERT),
    (b"<", "it is a web page", "download the picture again"),
    (b"PK\x03\x04", "it is a ZIP archive", "unpack it"),
    (b"version https://git-lfs", "it is a pointer of Git LFS", "fetch the file itself with git lfs pull"),
)


def has_video_suffix(path: str | Path) -> bool:
    """Whether a name has the suffix of a video."""
    return _suffix(path) in VIDEO_SUFFIXES


def has_picture_suffix(path: str | Path) -> bool:
    """Whether a name has the suffix of a picture."""
    return _suffix(path) in PICTURE_SUFFIXES


def is_video(path: str | Path) -> bool:
    """Whether a path is a video by its suffix or, with an unknown suffix, a folder or a video by content."""
    if has_video_suffix(path) or has_picture_suffix(path):
        return has_video_suffix(path)
    return os.path.isdir(path) or file_kind(path) == "video"


def file_kind(path: str | Path) -> Kind:
    """The kind of a file, by content; "gif", "apng" and "webp" may be animated; "unknown" if it cannot be read."""
    try:
        with open_file(path) as stream:
            return kind_of_bytes(stream.read(HEAD))
    except (OSError, ValueError):
        return "unknown"


def kind_of_bytes(head: bytes) -> Kind:
    """The kind of a file, by its first bytes; a WebP without animation is a "picture"."""
    if head[:4] == b"RIFF":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
        riff: dict[bytes, Kind] = {b"AVI ": "video", b"WEBP": "webp" if animated else "picture"}
        return riff.get(head[8:12], "unknown")
    if head[4:8] in _BOXES:
        return "picture" if _brand(head) in _PICTURE_BRANDS else "video"
    if head[:4] == b"GIF8":
        return "gif"
    if head.startswith(b"\x89PNG") and b"acTL" in head.split(b"IDAT")[0]:
        return "apng"
    if head.startswith(_VIDEO_STARTS) or _is_transport_stream(head):
        return "video"
    return "picture" if head.startswith(_PICTURE_STARTS) else "unknown"


def explain_unreadable(head: bytes) -> tuple[str, str]:
    """What an unreadable picture file is, by its first bytes, and the remedy."""
    if not head:
        return "it is empty, 0 bytes", "replace it"
    brand = _brand(head)
    if brand == "avif":
        return "it is AVIF, which this Pillow lacks", f"install a newer Pillow, or {_CONVERT}"
    if brand in (*_PICTURE_BRANDS, "hevc", "hevx", "msf1"):
        return "it is HEIC", f"pip install pillow-heif, or {_CONVERT}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, words, remedy in _UNREADABLE:
        if head.startswith(start) or text.startswith(start.lower()):
            return words, remedy
    if kind_of_bytes(head) == "video":
        return "it is a video", "take a frame of it, or name it as a video"
    return "not a known picture format", "replace it"


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file; pipes and devices, which might block, are refused.

    Raises:
        OSError: it does not exist, or is a folder, a pipe, a socket or a device.
        ValueError: the name has a null byte.
    """
    _check_regular(os.stat(path).st_mode)  # before opening, since opening a device may have side effects
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def not_a_file_reason(path: str | Path) -> str:
    """Why a path is not a regular file, to follow "picture X"; "" if it is one, or does not exist."""
    try:
        _check_regular(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    return ""


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for is_one, words in _NOT_FILES if is_one(mode)), "no file")
        raise OSError(f"it is {kind} rather than a file")


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()


def _brand(head: bytes) -> str:
    return head[8:12].decode("latin1") if head[4:8] == b"ftyp" else ""


def _is_transport_stream(head: bytes) -> bool:
    """Whether it is MPEG-TS: a sync byte every 188 bytes, or every 192 bytes after 4 bytes of time code."""
    plain = len(head) > 376 and all(head[at] == 0x47 for at in (0, 188, 376))
    return plain or (len(head) > 388 and all(head[at] == 0x47 for at in (4, 196, 388)))
