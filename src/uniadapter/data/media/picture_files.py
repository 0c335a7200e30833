"""Opening of picture files by Pillow, with limits on memory and without formats that may block or run programs."""

from __future__ import annotations

import importlib
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from uniadapter.data.media.file_kinds import HEAD, explain_unreadable, open_file
from uniadapter.data.media.limits import MAX_PIXELS, allowed_pixels, check_bytes, check_pixels
from uniadapter.data.media.rgb import REDUCED_SIDE

# Exceptions that Pillow's decoders raise on corrupt files.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# Formats that start other programs, decompress without a limit, or do not contain a picture themselves.
_REFUSED = frozenset({"EPS", "WMF", "FITS", "BUFR", "GRIB", "HDF5", "MPEG"})
# Packages that add a format to Pillow, on import or by the function.
_PLUGINS = (("pillow_heif", "register_heif_opener"), ("pillow_jxl", ""))
_DRAFT_FORMATS = ("JPEG", "MPO")  # can be decoded at 1/2, 1/4 and 1/8 of their size


class UnsupportedPicture(ValueError):
    """A file that is not a supported picture.

    Args:
        reason: what it is.
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@contextmanager
def open_picture(source: Path | str | io.BytesIO, min_side: int = 0) -> Iterator[Image.Image]:
    """Open a picture and check its size, without decoding it yet.

    Args:
        source: a file, or its bytes.
        min_side: a JPEG will be decoded at the smallest scale of 1/1, 1/2, 1/4 and 1/8 with both sides at least this
            long, in pixels; 0 decodes at full size if the limits allow it.

    Raises:
        TooLarge: the file or the decoded picture exceeds a limit.
        UnsupportedPicture: it is not a supported picture.
        OSError: it is not a file.
    """
    with open_file(source) if isinstance(source, (str, Path)) else source as stream:
        check_bytes(stream.seek(0, os.SEEK_END))
        with _open_with_pillow(stream, os.fspath(source) if isinstance(source, (str, Path)) else "") as picture:
            most = allowed_pixels(MAX_PIXELS)
            enough = min_side or (REDUCED_SIDE if picture.width * picture.height > most else 0)
            if enough and picture.format in _DRAFT_FORMATS:
                picture.draft(None, (enough, enough))
            check_pixels(picture.width, picture.height, MAX_PIXELS)
            yield picture


def _open_with_pillow(stream: BinaryIO, name: str) -> Image.Image:
    """As `Image.open`, without the refused formats and without its limit on pixels, which ignores reduced scales."""
    for prepare in (Image.preinit, Image.init, _load_plugins):
        prepare()
        for kind in Image.ID:
            if kind in _REFUSED:
                continue
            factory, accept = Image.OPEN[kind]
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                stream.seek(0)
                accepted = accept is None or accept(stream.read(16))
                if accepted and not isinstance(accepted, str):  # a string is a reason for refusing it
                    stream.seek(0)
                    return factory(stream, name)
    stream.seek(0)
    raise UnsupportedPicture(*explain_unreadable(stream.read(HEAD)))


def _load_plugins() -> None:
    for module, function in _PLUGINS:
        with suppress(ImportError):
            plugin = importlib.import_module(module)
            if function:
                getattr(plugin, function)()
