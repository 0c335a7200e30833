"""Rank the files of an index: by the most similar frame, and the best of them anew by matching."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniadapter.errors import DataError
from uniadapter.model.settings import first_given
from uniadapter.search.encoder import Encoder
from uniadapter.search.frame_groups import FrameGroups, Similar
from uniadapter.search.queries import Query, Term
from uniadapter.search.store import FileRow, Frames, Store

logger = logging.getLogger(__name__)

RERANKED = 16  # files that are ranked anew by matching, where the adapter has no number of its own
OVERFETCH = 20  # frames fetched from the approximate index for each file that is asked for


@dataclass(frozen=True)
class Filters:
    """What a search looks at.

    Args:
        kind: "picture" or "video"; "" for both.
        after: only what was taken then or later.
        before: only what was taken earlier.
        under: only what lies below this folder.
    """

    kind: str = ""
    after: datetime | None = None
    before: datetime | None = None
    under: Path | None = None

    def admits(self, row: FileRow) -> bool:
        """Whether a file is looked at."""
        return (
            (not self.kind or row.kind == self.kind)
            and (self.after is None or row.taken >= self.after.timestamp())
            and (self.before is None or row.taken < self.before.timestamp())
            and (self.under is None or self.under in Path(row.path).parents)
        )


@dataclass(frozen=True)
class Match:
    """A file that was found.

    Args:
        path: of the file.
        kind: "picture" or "video".
        time: of a video's best frame, in seconds; None for a picture.
        similarity: cosine of the query and the best frame.
        matching: probability that the words are true of it; None if it was not matched.
        thumbnail: of the best frame, as JPEG.
        taken: seconds since 1970.
    """

    path: str
    kind: str
    time: float | None
    similarity: float
    matching: float | None
    thumbnail: bytes
    taken: float


@dataclass
class _Candidate:
    row: FileRow
    number: int
    time: float
    similarity: float
    score: float | None = None  # by which it was ranked anew
    matching: float | None = None


class Ranking:
    """An index in memory, for many searches.

    Args:
        store: of the index.
        encoder: of the model.
        cut_off: of `calibrate`: "matching", a probability, and "similarity", in standard deviations above the mean of
            all files; empty for none.
    """

    def __init__(self, store: Store, encoder: Encoder, cut_off: dict[str, float]) -> None:
        self.store, self.encoder, self.cut_off = store, encoder, cut_off
        self.files = [row for row in store.files().values() if not row.problem]
        self.frames: Frames = store.frames()
        self.groups = FrameGroups(self.frames, self.files)
        self._places = {row.path: place for place, row in enumerate(self.files)}

    def search(
        self, query: Query, top: int, filters: Filters, rerank: int | None, exact: bool, cut_off: bool
    ) -> list[Match]:
        """See `Index.search`."""
        admitted = self._admitted(filters)
        if not len(admitted) or top < 1:
            return []
        vector = self.encoder.query(query)
        k = first_given(rerank, self.encoder.loaded.settings.k or None, RERANKED)
        k = k if query.can_be_matched and self.encoder.can_match else 0
        if exact:
            similar = self.groups.similar(vector)
            found = similar.first(admitted)
            every = similar.files[found]
            first = self._candidates(similar, found[: max(top, k)])
        else:
            first = self._near(vector, [self.files[place] for place in admitted], max(top, k))
            every = np.array([one.similarity for one in first], np.float32)
        ranked = self._reranked(query, first, k)
        if cut_off and self.cut_off:
            if k:
                ranked = [one for one in ranked if (one.matching or 0.0) >= self.cut_off["matching"]]
            else:
                far = _standardised(every)[: len(ranked)]
                ranked = ranked[: int((far >= self.cut_off["similarity"]).sum())]
        return self._told(ranked[:top])

    def _admitted(self, filters: Filters) -> NDArray[np.int64]:
        """The places of the files that are looked at."""
        if filters == Filters():
            return np.arange(len(self.files))
        return np.array([place for place, row in enumerate(self.files) if filters.admits(row)], np.int64)

    def _candidates(self, similar: Similar, places: NDArray[np.int64]) -> list[_Candidate]:
        """Files with their most similar frames."""
        out = []
        for place in places.tolist():
            frames = self.groups.rows(place)
            best = frames[int(similar.frames[frames].argmax())]
            number, time = int(self.frames.numbers[best]), float(self.frames.times[best])
            out.append(_Candidate(self.files[place], number, time, float(similar.frames[best])))
        return out

    def _near(self, vector: NDArray[np.float32], admitted: Sequence[FileRow], count: int) -> list[_Candidate]:
        """The same of the files that the approximate index finds."""
        rows: dict[str, list[FileRow]] = {}
        for row in admitted:
            rows.setdefault(row.digest, []).append(row)
        best: dict[str, _Candidate] = {}
        for digest, number, time, similarity in self.store.nearest(vector, count * OVERFETCH):
            for row in rows.get(digest, ()):
                if row.path not in best or similarity > best[row.path].similarity:
                    best[row.path] = _Candidate(row, number, time, similarity)
        return sorted(best.values(), key=lambda one: -one.similarity)

    def _reranked(self, query: Query, ranked: list[_Candidate], k: int) -> list[_Candidate]:
        """The k most similar files by matching, the others behind them as they were."""
        first = ranked[:k]
        if first:
            self._match(query, first)
        matched = [one for one in first if one.score is not None]
        rest = [one for one in first if one.score is None]  # files that are gone or broken since they were indexed
        return sorted(matched, key=lambda one: -(one.score or 0.0)) + rest + ranked[k:]

    def _match(self, query: Query, candidates: list[_Candidate]) -> None:
        """Match candidates, all at once; where a file cannot be read any more, the others."""
        try:
            logits, sure = self.encoder.match(
                query, [one.row.path for one in candidates], [one.row.kind for one in candidates]
            )
        except DataError as error:
            if len(candidates) > 1:
                for one in candidates:
                    self._match(query, [one])
            else:
                logger.warning("%s is not matched: %s", candidates[0].row.path, error)
            return
        beta = self.encoder.loaded.settings.beta or 0.0
        for one, logit, probability in zip(candidates, logits, sure, strict=True):
            one.score, one.matching = float(logit) + beta * one.similarity, float(probability)

    def _told(self, ranked: Sequence[_Candidate]) -> list[Match]:
        thumbnails = self.store.thumbnails([(one.row.digest, one.number) for one in ranked])
        return [
            Match(
                one.row.path, one.row.kind, one.time if one.row.kind == "video" else None, one.similarity,
                one.matching,
                thumbnails.get((one.row.digest, one.number), b""), one.row.taken,
            )
            for one in ranked
        ]  # fmt: skip

    def thumbnail(self, path: str, time: float) -> bytes:
        """See `Index.thumbnail`."""
        place = self._places.get(path)
        if place is None or not len(rows := self.groups.rows(place)):
            return b""
        digest = self.files[place].digest
        number = int(self.frames.numbers[rows[int(np.abs(self.frames.times[rows] - time).argmin())]])
        return self.store.thumbnails([(digest, number)]).get((digest, number), b"")

    def calibrate(self, pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
        """See `Index.calibrate`."""
        known = [(text, self._places[path]) for text, path in pairs if path in self._places]
        if not known:
            raise DataError("none of the files is in the index: index their folder first", "no pairs")
        there: dict[str, list[float]] = {"similarity": [], "matching": []}
        absent: dict[str, list[float]] = {"similarity": [], "matching": []}
        k = first_given(self.encoder.loaded.settings.k or None, RERANKED) if self.encoder.can_match else 0
        group_of = self.groups.group_of
        for text, own in known:
            query = Query((Term(1.0, text),))
            similar = self.groups.similar(self.encoder.query(query))
            every = similar.first(np.arange(len(self.files)))
            for best, places in ((there, every), (absent, every[group_of[every] != group_of[own]])):
                if not len(places):
                    continue
                best["similarity"].append(float(_standardised(similar.files[places])[0]))
                if k:
                    ranked = self._reranked(query, self._candidates(similar, places[:k]), k)
                    best["matching"].append(ranked[0].matching or 0.0)
        found = {}
        for name in ("matching", "similarity"):
            if there[name]:
                found[name], told, refused = _threshold(np.array(there[name]), np.array(absent[name]))
                found |= {f"{name}: found, %": told, f"{name}: not found, %": refused}
        return found


def _standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many standard deviations above their mean."""
    spread = float(values.std()) if len(values) > 1 else 0.0
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros_like(values)


def _threshold(there: NDArray[np.float64], absent: NDArray[np.float64]) -> tuple[float, float, float]:
    """Where most of both are told right, and how many per cent of each."""
    if not len(absent):
        return float(there.min()), 100.0, 100.0
    values = np.unique(np.concatenate([there, absent]))
    right = [((there >= value).mean() + (absent < value).mean(), value) for value in values]
    best = float(max(right)[1])
    return best, 100 * float((there >= best).mean()), 100 * float((absent < best).mean())
