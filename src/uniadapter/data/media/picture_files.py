"""Pillow's pictures, opened so that a file can neither keep us waiting nor take more memory than is allowed."""

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

from uniadapter.data.media.kinds import HEAD, foreign, open_file
from uniadapter.data.media.limits import MOST_PIXELS, allowed_pixels, check_bytes, check_pixels
from uniadapter.data.media.rgb import ENOUGH

# What Pillow's decoders raise on broken files.
BROKEN = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, AttributeError, AssertionError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
# Formats that start other programs, unpack without a limit, or hold no picture of their own.
_REFUSED = frozenset({"EPS", "WMF", "FITS", "BUFR", "GRIB", "HDF5", "MPEG"})
# Packages that teach Pillow a format as they are imported or by this function of theirs.
_PLUGINS = (("pillow_heif", "register_heif_opener"), ("pillow_jxl", ""))
_DRAFTED = ("JPEG", "MPO")  # can be decoded at 1/2, 1/4 and 1/8


class Unidentified(ValueError):
    """No picture that can be read.

    Args:
        reason: what it is instead.
        remedy: what to do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@contextmanager
def open_picture(source: Path | str | io.BytesIO, at_least: int = 0) -> Iterator[Image.Image]:
    """A picture that is not decoded yet, of an allowed size.

    Args:
        source: a file, or the bytes of one.
        at_least: sides in pixels that are enough: a JPEG is set to the smallest of its scales (1/1, 1/2, 1/4, 1/8)
            with both sides at least this long; 0 decodes in full what may be decoded in full.

    Raises:
        TooLarge: the file, or what would be decoded, is above a limit.
        Unidentified: it is no picture that can be read.
        OSError: it is no file.
    """
    with open_file(source) if isinstance(source, (str, Path)) else source as stream:
        check_bytes(stream.seek(0, os.SEEK_END))
        with _identified(stream, os.fspath(source) if isinstance(source, (str, Path)) else "") as picture:
            most = allowed_pixels(MOST_PIXELS)
            enough = at_least or (ENOUGH if picture.width * picture.height > most else 0)
            if enough and picture.format in _DRAFTED:
                picture.draft(None, (enough, enough))
            check_pixels(picture.width, picture.height, MOST_PIXELS)
            yield picture


def _identified(stream: BinaryIO, name: str) -> Image.Image:
    """As `Image.open`, but for its limit on pixels, which knows no drafts, and the formats that are refused."""
    for prepare in (Image.preinit, Image.init, _load_plugins):
        prepare()
        for kind in Image.ID:
            if kind in _REFUSED:
                continue
            factory, accept = Image.OPEN[kind]
            with suppress(SyntaxError, IndexError, TypeError, struct.error):
                stream.seek(0)
                accepted = accept is None or accept(stream.read(16))
                if accepted and not isinstance(accepted, str):  # a text says why not
                    stream.seek(0)
                    return factory(stream, name)
    stream.seek(0)
    raise Unidentified(*foreign(stream.read(HEAD)))


def _load_plugins() -> None:
    for module, function in _PLUGINS:
        with suppress(ImportError):
            plugin = importlib.import_module(module)
            if function:
                getattr(plugin, function)()
