"""Steps of a build: each is made again only when what it is made from has changed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from uniadapter.files.writing import file_hash, write_text

LOG = logging.getLogger("world")


@dataclass(frozen=True)
class Step:
    """A part of the build.

    Args:
        name: as given on the command line.
        needs: files and folders whose content decides the result, code included.
        makes: files and folders that are there afterwards.
        make: makes them.
        kept: what is there is kept whatever has changed, since making it takes hours: only `--retrain` replaces it.
    """

    name: str
    needs: tuple[Path, ...]
    makes: tuple[Path, ...]
    make: Callable[[], None]
    kept: bool = False


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Files among paths and in the folders among them, sorted."""
    found: set[Path] = set()
    for path in paths:
        inside = (inner for inner in path.rglob("*") if inner.is_file() and inner.parent.name != "__pycache__")
        found |= set(inside) if path.is_dir() else {path}
    return sorted(found)


def fingerprint(paths: Iterable[Path]) -> str:
    """One SHA-256 over names and contents of what is there; a missing file counts as such."""
    whole = hashlib.sha256()
    for path in files_of(paths):
        whole.update(f"{path.name} {file_hash(path) if path.exists() else 'missing'}\n".encode())
    return whole.hexdigest()


def state(step: Step) -> dict[str, str]:
    """What a step is made from, and what it made, as it is on disk."""
    return {"needs": fingerprint(step.needs), "makes": fingerprint(step.makes)}


def build(steps: list[Step], stamps: Path, only: str | None = None, anew: frozenset[str] = frozenset()) -> list[str]:
    """Make what is missing or out of date; returns the names of the steps that were made.

    Args:
        steps: in order.
        stamps: folder that remembers from what each step's files were made.
        only: name of the one step to look at; all where it isn't given.
        anew: names of steps that are made in any case.

    Raises:
        FileNotFoundError: a step did not leave what it should.
    """
    made = []
    for step in steps:
        if only not in (None, step.name):
            continue
        stamp = stamps / f"{step.name}.json"
        there = all(path.exists() for path in step.makes)
        if there and step.kept and step.name not in anew:
            LOG.info("%s: kept as it is", step.name)
            continue
        fresh = stamp.exists() and json.loads(stamp.read_text()) == state(step)
        if there and fresh and step.name not in anew:
            LOG.info("%s: up to date", step.name)
            continue
        LOG.info("%s: making", step.name)
        step.make()
        missing = [str(path) for path in step.makes if not path.exists()]
        if missing:
            raise FileNotFoundError(f"step {step.name} did not write {', '.join(missing)}")
        write_text(stamp, json.dumps(state(step)) + "\n")
        made.append(step.name)
    return made
