"""The original caption files of Flickr30K and Flickr8k.

results_20130124.token, Flickr8k.token.txt    "1000092795.jpg#0<tab>Two young guys …"
results.csv (Kaggle)                          "image_name| comment_number| comment"; one of its rows misses a separator
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.data.layouts.open_files import BROKEN, error_reason, open_text
from uniadapter.errors import DataError

_TOKEN = re.compile(r"^(?P<image>[^\t]+)#\d+\t(?P<caption>.*)$")
_RUN_IN = re.compile(r"^\s*(\d+)\s+(\S.*)$")


def is_token_file(source: AnnotationFile) -> bool:
    """Whether each line of a file is `picture#number`, a tab and a caption."""
    return source.table is not None and bool(_TOKEN.match(source.table.line.lstrip("\ufeff")))


def token_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per line."""
    number = 0
    try:
        with open_text(request.path) as stream:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                match = _TOKEN.match(line.rstrip("\r\n"))
                if match:
                    yield f"{request.path}:{number}", match.groupdict()
                else:
                    message = f"{request.path}:{number} is not 'picture#number', a tab and a caption"
                    request.policy.report(DataError(message, "unusable line"))
    except UnicodeDecodeError as error:
        raise DataError(f"{request.path}, after line {number}, is not text in UTF-8 ({error})", "not text") from None
    except BROKEN as error:
        raise DataError(f"{request.path} breaks off after line {number} ({error_reason(error)})", "cut off") from None


def is_results(source: AnnotationFile) -> bool:
    """Whether a file is Kaggle's results.csv."""
    return source.table is not None and {"image_name", "comment_number", "comment"} <= set(source.table.names)


def results_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per line; a number and a caption in the same cell are split."""
    for origin, row in request.source.rows(request.policy):
        if isinstance(row, Mapping) and row.get("comment") is None:
            match = _RUN_IN.match(str(row.get("comment_number") or ""))
            if match:
                row = {**row, "comment_number": match.group(1), "comment": match.group(2)}
        yield origin, row
