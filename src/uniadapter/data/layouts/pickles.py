"""Safe reading of pickles: only strings, numbers, lists, tuples and dicts; opcodes that could run code are refused."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, NoReturn

from uniadapter.errors import DataError

_MAX_BYTES = 1 << 28  # bytes: MSVD's captions are 10 MB
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}
_PLAIN_OPCODES = _MEMO | {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
}  # fmt: skip


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_pickle(file: Path) -> Any:
    """The content of a pickle of plain values.

    Raises:
        DataError: it holds anything else, is corrupt, or is larger than 256 MB.
    """
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(f"{file} is larger than {_MAX_BYTES >> 20} MB: save its captions as JSON", "pickle")
    content = file.read_bytes()
    try:
        _check(content)
        return _PlainUnpickler(io.BytesIO(content), encoding="utf-8", errors="replace").load()
    # A corrupt pickle may raise anything.
    except Exception as error:
        message = f"{file} is not a pickle of lists, dicts and texts only ({error}): save its captions as JSON"
        raise DataError(message, "pickle") from None


def _check(content: bytes) -> None:
    """Raise for opcodes that create anything but plain values, or that allocate a huge memo."""
    for number, (code, argument, _) in enumerate(pickletools.genops(content)):
        if code.name not in _PLAIN_OPCODES:
            raise ValueError(f"it has the instruction {code.name}")
        if code.name in _MEMO and isinstance(argument, int) and argument > number:
            raise ValueError("it numbers values that it does not have")
