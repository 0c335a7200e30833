"""SHA-256 of what ships, and the comparison of two builds."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from uniadapter.files.writing import file_hash, write_text

NAME = "SHA256SUMS"
SPLITS = "SPLIT_SHA256"  # the same of a task set's own files, which results quote
# What is not the same to the bit on every machine, and why.
VARIES = {
    "clips/single/*.mp4": "encoded by x264: another build writes other bytes",
    "*/sprites.webp": "encoded by libwebp: another version writes other bytes",
    f"*/{SPLITS}": "lists the hashes of those",
}


def hashes_of(folder: Path) -> dict[str, str]:
    """Path in the folder → SHA-256, of all files but the list itself."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def write_hashes(folder: Path, to: str = NAME) -> None:
    """Write the list into the file `to` of the folder, as `sha256sum --check` reads it."""
    write_text(folder / to, "".join(f"{value}  {name}\n" for name, value in hashes_of(folder).items()))


def read_hashes(folder: Path) -> dict[str, str]:
    """The list as written.

    Raises:
        FileNotFoundError: there is none.
    """
    lines = (folder / NAME).read_text().splitlines()
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}


def compare(kept: dict[str, str], made: dict[str, str]) -> tuple[list[str], list[str]]:
    """How a build differs from what is kept, a line a file: in what should be the same, and in what varies."""
    wrong, varying = [], []
    for name in sorted(kept.keys() | made.keys()):
        if kept.get(name) == made.get(name):
            continue
        why = next((reason for pattern, reason in VARIES.items() if fnmatch(name, pattern)), "")
        if name not in made or name not in kept:
            wrong.append(f"{name}: {'not made' if name not in made else 'made, but not kept'}")
        elif why:
            varying.append(f"{name}: {why}")
        else:
            wrong.append(f"{name}: {made[name][:12]}… made, {kept[name][:12]}… kept")
    return wrong, varying
