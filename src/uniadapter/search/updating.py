"""Bring an index up to date with its folders: encode what is new, recognise what is renamed, drop what is gone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniadapter.search.contents import Content, Encode
from uniadapter.search.media_files import MediaFile, Problem, find_media
from uniadapter.search.store import FileRow, FrameRow, Store


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


class Updating:
    """One update of an index.

    Args:
        store: of the index; the caller holds its lock.
        encode: makes what the index holds of files.
    """

    def __init__(self, store: Store, encode: Encode) -> None:
        self.store, self.encode, self.update = store, encode, Update()
        self.before = store.files()
        self.known = {row.digest: row for row in self.before.values() if row.digest and not row.problem}

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
        done = 0
        with closing(self.encode(new, self.known)) as batches:
            for batch in batches:
                self._write(batch, left)
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, len(new))
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

    def _write(self, batch: list[Content], left: set[str]) -> None:
        """Write what the index holds of some files, frames first.

        Args:
            batch: of contents; one that is known by now, as of two copies that two workers have read, has its frames.
            left: contents of files that are gone, and may be here under another name.
        """
        rows: list[FileRow] = []
        frames: list[FrameRow] = []
        for content in batch:
            row = content.row
            if row.problem:
                self.update.problems.append(Problem(row.path, row.problem))
            elif row.digest in self.known:
                row = replace(self.known[row.digest], path=row.path, size=row.size, changed=row.changed)
                self.update.renamed += row.digest in left
                self.update.added += row.digest not in left
                left.discard(row.digest)
            else:
                self.known[row.digest] = row
                frames += content.frames
                self.update.added += 1
            rows.append(row)
        self.store.put_frames(frames)
        self.store.put_files(rows)


def _below(path: str, root: str) -> bool:
    return Path(root) in Path(path).parents
