"""An index of pictures and videos: built from folders, kept up to date, and searched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniadapter.checkpoints.pretrained import Pretrained, from_pretrained
from uniadapter.errors import CheckpointError, DataError
from uniadapter.search.encoder import Encoder
from uniadapter.search.keyframes import Keyframes, read_keyframes, taken_at
from uniadapter.search.media_files import MediaFile, Problem, content_hash, find_media
from uniadapter.search.queries import Query, parse_query
from uniadapter.search.ranking import Filters, Match, Ranking
from uniadapter.search.store import FileRow, FrameRow, Store

logger = logging.getLogger(__name__)

BATCH = 64  # frames encoded and written at once: what a killed run repeats at most
DEFAULT = "embedded"


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
    """Files whose frames wait to be encoded."""

    files: list[FileRow] = field(default_factory=list)
    read: list[Keyframes] = field(default_factory=list)

    @property
    def frames(self) -> int:
        return sum(len(one.frames) for one in self.read)


class Index:
    """An index on disk.

    Args:
        folder: of the index; created by `add` where there is none.
        model: of an index that is new, or another name of the one that it was made with: an adapter folder,
            `embedded:NAME`, a run folder, a base, or what `ua.from_pretrained` returned. None takes the index's own,
            or the embedded base.

    Raises:
        CheckpointError: the model cannot be loaded, is not for retrieval, or is another than that of the index.
        DataError: the folder is no index.
        UsageError: LanceDB is not installed.

    Example:
        >>> index = ua.Index(folder / "my.index")
        >>> print(index.add(pictures_folder))
        2 added
        >>> [Path(found.path).name for found in index.search("a red box", top=1)]
        ['box.png']
    """

    def __init__(self, folder: str | Path, model: str | Path | Pretrained | None = None) -> None:
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{self.folder}: a file, no index", "no index")
        described = Store(self.folder, 1).description()
        if described is None and self.folder.exists() and any(self.folder.iterdir()):
            raise DataError(f"{self.folder}: a folder of other files, no index; name a new one", "no index")
        source = model if model is not None else described["model"] if described else DEFAULT
        loaded = source if isinstance(source, Pretrained) else from_pretrained(source)
        self.encoder = Encoder(loaded)
        self.store = Store(self.folder, self.encoder.width)
        self.described = described or {}
        self.name = str(source.adapter or source.base) if isinstance(source, Pretrained) else model_name(source)
        self._check_fingerprint()
        self._ranking: Ranking | None = None

    def _check_fingerprint(self) -> None:
        made, own = self.described.get("fingerprint"), self.encoder.fingerprint
        if made and own.digest != made.get("digest"):
            parts = ", ".join(own.differs_in(made)) or "format"
            raise CheckpointError(
                f"{self.folder}: made with another {parts} than {self.name}; build it again: uniadapter index "
                f"--index {self.folder} --model {self.name} --rebuild"
            )

    def add(self, *folders: str | Path, on_progress: Callable[[int, int], None] | None = None) -> Update:
        """Index folders, and bring those up to date that were indexed before.

        New and changed files are encoded, renamed ones recognised by their content, and removed ones dropped. It can be
        interrupted, and goes on where it was.

        Args:
            folders: to add to those of the index; none brings it up to date.
            on_progress: called with the number of files done and of all that are new or changed.

        Raises:
            DataError: a folder does not exist.
            UsageError: another process is writing into the index.
        """
        given = [str(Path(one).expanduser().absolute()) for one in folders]
        for one in given:
            if not Path(one).is_dir():
                raise DataError(f"{one}: no such folder", "no folder")
        with self.store.writing():
            roots = list(dict.fromkeys([*self.described.get("folders", []), *given]))
            self._describe(roots)
            update = self._update(roots, on_progress)
            self.store.drop_unused()
            self.store.compact()
        self._ranking = None
        return update

    def _describe(self, folders: list[str]) -> None:
        made = self.encoder.fingerprint
        self.described = {
            **self.described, "model": self.described.get("model", self.name), "folders": folders,
            "fingerprint": {**vars(made), "digest": made.digest},
        }  # fmt: skip
        self.store.describe(self.described)

    def _update(self, roots: list[str], on_progress: Callable[[int, int], None] | None) -> Update:
        update, before = Update(), self.store.files()
        found: dict[str, MediaFile] = {}
        for root in roots:
            if not Path(root).is_dir():
                update.problems.append(Problem(root, "the folder is gone; its files are kept in the index"))
                continue
            files, problems = find_media(Path(root))
            found |= {file.path: file for file in files}
            update.problems += problems
        kept_roots = [root for root in roots if not Path(root).is_dir()]
        gone = [path for path in before if path not in found and not any(_below(path, root) for root in kept_roots)]
        new = []
        for path, file in found.items():
            known = before.get(path)
            if known is not None and (known.size, known.changed) == (file.size, file.changed):
                update.unchanged += not known.problem
                if known.problem:
                    update.problems.append(Problem(path, known.problem))
            else:
                new.append(file)
        self._encode_all(new, before, set(gone), update, on_progress)
        self.store.drop_files(gone)
        update.removed = len(gone) - update.renamed
        return update

    def _encode_all(
        self,
        new: list[MediaFile],
        before: dict[str, FileRow],
        gone: set[str],
        update: Update,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """Encode new and changed files, a batch at a time; what is known by its content is only written down."""
        known = {row.digest: row for row in before.values() if row.digest and not row.problem}
        left = {row.digest for path, row in before.items() if path in gone}
        batch, waiting = _Batch(), set[str]()
        for done, file in enumerate(new):
            try:
                digest = content_hash(file.path)
                row = FileRow(file.path, digest, file.size, file.changed)
                same = known.get(digest)
                if same is not None:
                    self.store.put_files([replace(same, path=file.path, size=file.size, changed=file.changed)])
                    update.renamed += digest in left
                    update.added += digest not in left
                    left.discard(digest)
                elif digest in waiting:  # a copy of a file of this batch
                    self._write(batch, known, update)
                    waiting.clear()
                    self.store.put_files([replace(known[digest], path=file.path, size=file.size, changed=file.changed)])
                    update.added += 1
                else:
                    read = read_keyframes(file.path, self.encoder.min_side)
                    taken = taken_at(file.path, read.kind)
                    batch.files.append(replace(row, kind=read.kind, seconds=read.seconds, taken=taken))
                    batch.read.append(read)
                    waiting.add(digest)
            except (DataError, OSError) as error:
                reason = _reason(error, file.path)
                update.problems.append(Problem(file.path, reason))
                self.store.put_files([FileRow(file.path, "", file.size, file.changed, problem=reason)])
            if batch.frames >= BATCH:
                self._write(batch, known, update)
                waiting.clear()
            if on_progress is not None:
                on_progress(done + 1, len(new))
        self._write(batch, known, update)

    def _write(self, batch: _Batch, known: dict[str, FileRow], update: Update) -> None:
        """Encode and write a batch, frames first, and empty it."""
        vectors = self.encoder.frames([frame.picture for read in batch.read for frame in read.frames])
        rows, place = [], 0
        for file, read in zip(batch.files, batch.read, strict=True):
            for number, frame in enumerate(read.frames):
                rows.append(FrameRow(file.digest, number, frame.time, vectors[place], frame.thumbnail))
                place += 1
        self.store.put_frames(rows)
        self.store.put_files(batch.files)
        known.update({file.digest: file for file in batch.files})
        update.added += len(batch.files)
        batch.files.clear()
        batch.read.clear()

    def files(self) -> list[FileRow]:
        """The files that can be found, by path."""
        return sorted((row for row in self.store.files().values() if not row.problem), key=lambda row: row.path)

    def problems(self) -> list[Problem]:
        """The files that could not be indexed, and why."""
        rows = sorted(self.store.files().values(), key=lambda row: row.path)
        return [Problem(row.path, row.problem) for row in rows if row.problem]

    def __len__(self) -> int:
        return len(self.files())

    def search(
        self,
        query: str | Query,
        top: int = 10,
        filters: Filters | None = None,
        rerank: int | None = None,
        exact: bool = True,
        cut_off: bool = True,
    ) -> list[Match]:
        """The files that fit a query best, best first.

        Args:
            query: words, `./FILE` for a picture, or several of them, weighed: see `search.queries`.
            top: most files.
            filters: what is looked at.
            rerank: how many of the most similar files are ranked anew by matching, where the family fuses and the query
                is of words alone; 0 does not, None takes the adapter's number, or 16.
            exact: look at every frame; False uses LanceDB's approximate index.
            cut_off: leave out what is below the cut-off that `calibrate` found; it has none before.

        Returns:
            Matches; none is an answer too.

        Raises:
            UsageError: the query cannot be read.
        """
        asked = parse_query(query) if isinstance(query, str) else query
        if self._ranking is None:
            self._ranking = Ranking(self.store, self.encoder, self.described.get("cut_off", {}))
        return self._ranking.search(asked, top, filters or Filters(), rerank, exact, cut_off)

    def calibrate(self, pairs: Sequence[tuple[str, str | Path]]) -> dict[str, float]:
        """Find the cut-offs below which nothing is found, and keep them in the index.

        Of each query the best score is taken twice, with its file and as if that were not there. The cut-off is where
        most of both are told right: found, and not found.

        Args:
            pairs: texts and the files that they are about, which must be in the index; not those of a test split.

        Returns:
            The cut-offs, and under "found" and "not found" how many per cent of each are told right.

        Raises:
            DataError: no pair's file is in the index.
        """
        ranking = Ranking(self.store, self.encoder, {})
        found = ranking.calibrate([(text, str(Path(file).expanduser().absolute())) for text, file in pairs])
        self.described = {**self.described, "cut_off": found}
        self.store.describe(self.described)
        self._ranking = None
        return found

    def build_ann(self) -> None:
        """Build the approximate index, which pays from some ten thousand frames on."""
        with self.store.writing():
            self.store.build_ann()


def model_name(model: str | Path) -> str:
    """The name under which an index keeps its model: that of a folder becomes absolute."""
    if str(model).startswith(DEFAULT):
        return str(model)
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.exists() else str(model)


def _below(path: str, root: str) -> bool:
    return Path(root) in Path(path).parents


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).replace(path, "it").replace(", or set data.on_error to skip", "")
