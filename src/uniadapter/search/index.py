"""An index of pictures and videos: built from folders, kept up to date, and searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from uniadapter.checkpoints.bases import EMBEDDED
from uniadapter.checkpoints.pretrained import Pretrained, from_pretrained
from uniadapter.errors import CheckpointError, DataError, UsageError
from uniadapter.files.messages import shortened
from uniadapter.search.contents import Encode, encode_files
from uniadapter.search.encoder import Encoder
from uniadapter.search.media_files import Problem
from uniadapter.search.places import place_of
from uniadapter.search.queries import Query, parse_query
from uniadapter.search.ranking import Filters, Match, Ranking
from uniadapter.search.store import FileRow, Store
from uniadapter.search.updating import Update, Updating

ENGINES = ("plain", "ray")


class Index:
    """An index on disk.

    Args:
        folder: of the index, or its address in an object store: `s3://bucket/my.index`; created by `add` where there
            is none.
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
        self.place = place_of(folder)
        described = self.place.described()
        source = model if model is not None else described["model"] if described else EMBEDDED
        loaded = source if isinstance(source, Pretrained) else from_pretrained(source)
        self.encoder = Encoder(loaded)
        self.store = Store(self.place, self.encoder.width)
        self.described = described or {}
        self.name = model_name(source.adapter or source.base if isinstance(source, Pretrained) else source)
        self._check_fingerprint()
        self._ranking: Ranking | None = None

    def _check_fingerprint(self) -> None:
        made, own = self.described.get("fingerprint"), self.encoder.fingerprint
        if made and own.digest != made.get("digest"):
            parts = ", ".join(own.differs_in(made)) or "format"
            raise CheckpointError(
                f"{self.place.name}: made with another {parts} than {self.name}; build it again: uniadapter index "
                f"--index {self.place.name} --model {self.name} --rebuild"
            )

    def add(
        self,
        *folders: str | Path,
        on_progress: Callable[[int, int], None] | None = None,
        engine: str = "plain",
        workers: int | None = None,
        worker_gpus: float = 0,
    ) -> Update:
        """Index folders, and bring those up to date that were indexed before.

        New and changed files are encoded, renamed ones recognised by their content, and removed ones dropped. It can be
        interrupted, and goes on where it was.

        Args:
            folders: to add to those of the index; none brings it up to date.
            on_progress: called with the number of files done and of all that are new or changed.
            engine: "plain" reads and encodes in this process; "ray" in the workers of a Ray cluster: the one that this
                process is connected to, else the one at RAY_ADDRESS or on this machine, else one that is started here.
                The machines must see the folders and the model at the same paths.
            workers: most of Ray's; None takes as many as there are cores, or GPUs.
            worker_gpus: of each of Ray's workers.

        Raises:
            DataError: a folder does not exist.
            UsageError: another process is writing into the index, or Ray is not installed.
        """
        given = [str(Path(one).expanduser().absolute()) for one in folders]
        for one in given:
            if not Path(one).is_dir():
                raise DataError(f"{one}: no such folder", "no folder")
        roots = list(dict.fromkeys([*self.described.get("folders", []), *given]))
        encode = self._engine(engine, roots, workers, worker_gpus)
        with self.place.told(), self.place.writing():
            self.store.create()  # before the description, so that a reader never finds one without tables
            self._describe(roots)
            update = Updating(self.store, encode).run(roots, on_progress)
        self._ranking = None
        return update

    def _engine(self, name: str, roots: list[str], workers: int | None, gpus: float) -> Encode:
        if name == "plain":
            return partial(encode_files, encoder=self.encoder)
        if name != "ray":
            raise UsageError(f"engine is {shortened(name, 40)!r}; there are {' and '.join(ENGINES)}")
        from uniadapter.search.ray_engine import Job, RayEngine, Workers

        loaded = self.encoder.loaded
        base = model_name(loaded.base) if loaded.adapter else None
        there = [root for root in roots if Path(root).is_dir()]
        job = Job(self.name, base, loaded.model.dtype, self.encoder.fingerprint.digest, there)
        return RayEngine(job, Workers(workers, gpus))

    def _describe(self, folders: list[str]) -> None:
        made = self.encoder.fingerprint
        self.described = {
            **self.described, "model": self.described.get("model", self.name), "folders": folders,
            "fingerprint": {**vars(made), "digest": made.digest},
        }  # fmt: skip
        self.place.describe(self.described)

    def files(self) -> list[FileRow]:
        """The files that can be found, by path."""
        with self.place.told():
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
        with self.place.told():
            return self._in_memory().search(asked, top, filters or Filters(), rerank, exact, cut_off)

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
        self.place.describe(self.described)
        self._ranking = None
        return found

    def thumbnail(self, path: str, time: float = 0.0) -> bytes:
        """The thumbnail of a file's frame that is nearest to a time in seconds; empty for a file that is not there."""
        return self._in_memory().thumbnail(path, time)

    def _in_memory(self) -> Ranking:
        if self._ranking is None:
            self._ranking = Ranking(self.store, self.encoder, self.described.get("cut_off", {}))
        return self._ranking

    def reload(self) -> None:
        """Forget what is in memory, so that the next search reads what another process has written since."""
        self._ranking = None

    def build_ann(self) -> None:
        """Build the approximate index, which pays from some ten thousand frames on."""
        with self.place.writing():
            self.store.build_ann()


def model_name(model: str | Path) -> str:
    """The name under which an index keeps its model: that of a folder becomes absolute."""
    if str(model).startswith(EMBEDDED):
        return str(model)
    folder = Path(model).expanduser()
    return str(folder.absolute()) if folder.exists() else str(model)
