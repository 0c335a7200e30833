"""Names of shards: `train-{000000..000099}.tar`, a folder or address with tar files, one file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice

from uniadapter.data.shards.places import is_address, join, list_names
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened

HUB = "hf://"
MOST = 1_000_000  # shards of a set
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def names_shards(name: str) -> bool:
    """Whether a value of `data.train` names tar shards, rather than an annotation file or a folder of pictures."""
    last = name.rstrip("/").rpartition("/")[2].lower()
    if name.startswith(HUB) or name.startswith("embedded:"):
        return False
    if last.endswith(".tar") or last.endswith(_PACKED):
        return True
    if is_address(name):
        return "." not in last  # a folder elsewhere
    if not os.path.isdir(name):
        return False
    files = os.listdir(name)
    return any(one.endswith(".tar") for one in files) and not any(one.startswith("metadata.") for one in files)


def find_shards(name: str) -> tuple[str, list[str] | None]:
    """The folder or address of a set of shards, and the names of its tar files there, in order.

    Args:
        name: a pattern with braces, a tar file, or a folder; local, or an address that fsspec knows.

    Returns:
        No names for a folder, whose index or `list_shards` tells them.

    Raises:
        DataError: a range of the pattern is empty, or the shards are packed.
    """
    if name.lower().endswith(_PACKED):
        raise DataError(
            f"{shortened(name, 160)} is packed, and its records could not be read in any order: unpack it to .tar",
            "packed shard",
        )
    if "{" not in name and not name.lower().endswith(".tar"):
        return name.rstrip("/"), None
    place, _, last = name.rpartition("/")
    if "{" in place:
        raise DataError(f"{shortened(name, 160)}: braces stand in the file's name only: name one folder", "no shards")
    found = list(islice(expand_braces(last), MOST + 1))
    if len(found) > MOST:
        raise DataError(f"{shortened(name, 160)} names more than {MOST:,} shards: a set has fewer", "no shards")
    repeated = len(found) - len(set(found))
    if repeated:
        raise DataError(f"{shortened(name, 160)} names {repeated} shards twice: correct the braces", "no shards")
    return place or ("/" if name.startswith("/") else "."), found


def expand_braces(pattern: str) -> Iterator[str]:
    """The names of a pattern: `{000..099}` is a range with as many digits, `{a,b}` a choice.

    Raises:
        DataError: a range or choice is empty, or there are too many names.
    """
    braces = _BRACES.search(pattern)
    if braces is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(f"{shortened(pattern, 160)}: a brace is not closed", "no shards")
        yield pattern
        return
    inside = braces[1]
    bounds = _RANGE.fullmatch(inside)
    if bounds is not None:
        first, last = int(bounds[1]), int(bounds[2])
        if last < first or last - first >= MOST:
            raise DataError(
                f"{shortened(pattern, 160)}: the range {{{inside}}} has {max(last - first + 1, 0):,} names, and a set "
                f"has 1 to {MOST:,} shards: write the smaller number first",
                "no shards",
            )
        choices = [f"{number:0{len(bounds[1])}d}" for number in range(first, last + 1)]
    else:
        choices = inside.split(",")
        if len(choices) < 2 or not all(choices):
            message = f"{shortened(pattern, 160)}: {{{inside}}} is neither a range {{000..099}} nor a choice {{a,b}}"
            raise DataError(message, "no shards")
    for choice in choices:
        yield from expand_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


def list_shards(folder: str) -> list[str]:
    """The names of the tar files in a folder or at an address.

    Raises:
        DataError: there is none, or they are of several splits.
    """
    names = sorted(name for name in list_names(folder) if name.endswith(".tar"))
    if not names:
        raise DataError(f"{shortened(folder, 160)} has no .tar: name a folder with shards, or the shards", "no shards")
    stems = sorted({re.sub(r"[\d_.-]*\.tar$", "", name) for name in names})
    if len(stems) > 1:
        example = join(folder, f"{stems[0]}-{{000000..000009}}.tar")
        raise DataError(
            f"{shortened(folder, 120)} has shards of several sets ({shortened(', '.join(stems), 60)}): name those of "
            f"one, {shortened(example, 80)} say",
            "several splits",
        )
    return names
