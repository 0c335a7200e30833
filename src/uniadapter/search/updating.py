"""Bring an index up to date with its folders: encode what is new, recognise what is renamed, drop what is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from uniadapter.errors import DataError
from uniadapter.files.writing import file_hash
from uniadapter.search.encoder import Encoder
from uniadapter.search.keyframes import read_keyframes, taken_at
from uniadapter.search.media_files import MediaFile, Problem, find_media
from uniadapter.search.store import FileRow, FrameRow, Store

BATCH = 64  # frames encoded and written at once: what a killed run repeats at most
TOLD = 500  # files without new frames that are written at once


@dataclass
class Update:
    """What an update of an index did.

    Args:
        added: files that were encoded.
        renamed: files that were recognised by their content under a new path.
        removed: files that are gone.
        unchanged: files that were there before.
        problems: files and folders that could not be indexed.
    """

    added: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        parts = (f"{self.added} added", f"{self.renamed} renamed", f"{self.removed} removed",
                 f"{self.unchanged} unchanged", f"{len(self.problems)} not indexed")  # fmt: skip
        return ", ".join(part for part in parts if not part.startswith("0 ")) or "nothing there"


@dataclass
class _Batch:
    """What waits to be encoded and written.

    Args:
        encoded: files with new frames, by their content.
        told: further files: renamed, copied, or with a problem.
        frames: of the first, without their vectors.
        pixels: of these, as the model takes them; the pictures themselves may be large, and are not kept.
    """

    encoded: dict[str, FileRow] = field(default_factory=dict)
    told: list[FileRow] = field(default_factory=list)
    frames: list[tuple[str, int, float, bytes]] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.frames) >= BATCH or len(self.told) >= TOLD


class Updating:
    """One update of an index.

    Args:
        store: of the index; the caller holds its lock.
        encoder: of the model.
    """

    def __init__(self, store: Store, encoder: Encoder) -> None:
        self.store, self.encoder, self.update = store, encoder, Update()
        self.before = store.files()
        self.known = {row.digest: row for row in self.before.values() if row.digest and not row.problem}
        self.batch = _Batch()

    def run(self, roots: list[str], on_progress: Callable[[int, int], None] | None) -> Update:
        """See `Index.add`.

        Args:
            roots: all folders of the index.
            on_progress: called with the number of files done and of all that are new or changed.
        """
        found, away = self._look(roots)
        gone = [path for path in self.before if path not in found and not any(_below(path, root) for root in away)]
        left = {self.before[path].digest for path in gone}
        new = [file for path, file in found.items() if not self._is_unchanged(path, file)]
        for done, file in enumerate(new):
            self._take(file, left)
            if self.batch.full:
                self._write()
            if on_progress is not None:
                on_progress(done + 1, len(new))
        self._write()
        self.store.drop_files(gone)
        self.update.removed = len(gone) - self.update.renamed
        self.store.drop_unused()
        self.store.compact()
        return self.update

    def _look(self, roots: list[str]) -> tuple[dict[str, MediaFile], list[str]]:
        """The files below the folders by path, and the folders that are away as a whole, such as a drive."""
        found: dict[str, MediaFile] = {}
        away = [root for root in roots if not Path(root).is_dir()]
        self.update.problems += [Problem(root, "the folder is gone; its files are kept in the index") for root in away]
        for root in roots:
            if root not in away:
                files, problems = find_media(Path(root))
                found |= {file.path: file for file in files}
                self.update.problems += problems
        return found, away

    def _is_unchanged(self, path: str, file: MediaFile) -> bool:
        known = self.before.get(path)
        if known is None or (known.size, known.changed) != (file.size, file.changed):
            return False
        if known.problem:
            self.update.problems.append(Problem(path, known.problem))
        else:
            self.update.unchanged += 1
        return True

    def _take(self, file: MediaFile, left: set[str]) -> None:
        """Put a new or changed file into the batch; what is known by its content is not read again.

        Args:
            file: to be indexed.
            left: contents of files that are gone, and may be here under another name.
        """
        named = {"path": file.path, "size": file.size, "changed": file.changed}
        try:
            digest = file_hash(file.path)
            same = self.known.get(digest) or self.batch.encoded.get(digest)
            if same is not None:
                self.batch.told.append(replace(same, **named))  # type: ignore[arg-type]
                self.update.renamed += digest in left
                self.update.added += digest not in left
                left.discard(digest)
                return
            read = read_keyframes(file.path, self.encoder.transform.min_side)
            row = FileRow(
                file.path, digest, file.size, file.changed, read.kind, read.seconds, taken_at(file.path, read.kind)
            )
            pixels = [self.encoder.transform(frame.picture) for frame in read.frames]
        except (DataError, OSError) as error:
            reason = _reason(error, file.path)
            self.update.problems.append(Problem(file.path, reason))
            self.batch.told.append(FileRow(file.path, "", file.size, file.changed, problem=reason))
            return
        self.batch.encoded[digest] = row
        self.batch.pixels += pixels
        self.batch.frames += [(digest, number, frame.time, frame.thumbnail) for number, frame in enumerate(read.frames)]
        self.update.added += 1

    def _write(self) -> None:
        """Encode and write the batch, frames first, and begin another."""
        batch, self.batch = self.batch, _Batch()
        vectors = self.encoder.frames(batch.pixels)
        self.store.put_frames(
            [
                FrameRow(digest, number, time, vector, thumbnail)
                for (digest, number, time, thumbnail), vector in zip(batch.frames, vectors, strict=True)
            ]
        )
        self.store.put_files([*batch.encoded.values(), *batch.told])
        self.known |= batch.encoded


def _below(path: str, root: str) -> bool:
    return Path(root) in Path(path).parents


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).replace(path, "it").replace(", or set data.on_error to skip", "")
