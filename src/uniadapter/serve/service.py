"""What the server does, without HTTP: search, answers, captions, and where words look."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from pathlib import Path

from uniadapter.data.media.user_inputs import as_texts
from uniadapter.errors import DataError
from uniadapter.inference.attention import attention_maps
from uniadapter.inference.features import pair_scores
from uniadapter.model.attention_maps import AttentionMap
from uniadapter.model.dispatch import fuses, has_attention_maps
from uniadapter.search.index import Index
from uniadapter.search.queries import parse_query
from uniadapter.search.ranking import RERANKED, Filters, Match
from uniadapter.serve.adapters import Adapter, Adapters
from uniadapter.serve.answering import Answer, Job, run_jobs, visual_of
from uniadapter.serve.batching import Batcher, BusyError
from uniadapter.serve.items import Item, Items

ANSWER_SECONDS = 120.0  # that a request waits for its answer
LOOK_SECONDS = 2.0  # between two looks whether the index has changed


@dataclass(frozen=True)
class Found:
    """A file that was found, by its key."""

    item: Item
    match: Match


class Service:
    """An index and its models in memory.

    Args:
        index: opened.
        adapters: for the model of the index, and for other tasks.
        waiting: requests that may wait for an answer; another is refused.
    """

    def __init__(self, index: Index, adapters: Adapters, waiting: int = 64) -> None:
        self.index, self.adapters = index, adapters
        self.items = Items(index.described.get("folders", []))
        # One computation at a time: two would only slow each other down.
        self._computing = threading.Lock()
        self.batcher: Batcher[Job] = Batcher(self._run, waiting=waiting)
        self._looked, self._version = 0.0, tuple[int, ...]()
        self.refresh()

    def refresh(self) -> None:
        """Take over what another process has written into the index since."""
        with self._computing:
            now = time.monotonic()
            if self._version and now - self._looked < LOOK_SECONDS:
                return
            self._looked, version = now, self.index.store.version()
            if version != self._version:
                self.index.reload()
                self.items.set_files(self.index.files())
                self._version = version

    def search(self, text: str, top: int, filters: Filters, rerank: bool, adapter: str = "") -> list[Found]:
        """The files that fit a query best.

        Args:
            text: see `search.queries`; `./NAME` is a file of the index, or `./KEY` an upload.
            top: most files.
            filters: what is looked at.
            rerank: rank the best anew by matching.
            adapter: by which they are ranked anew; "" is the index's own.

        Raises:
            DataError: there is no such adapter.
            UsageError: the query cannot be read.
        """
        query = parse_query(text, self._picture)
        self.refresh()
        own = self.adapters.searching
        chosen = self.adapters.named("retrieval", adapter) if adapter else own
        other = chosen is not own and query.can_be_matched and fuses(chosen.model)
        with self._computing:  # the quick look while somebody types shows all; the cut-off comes with matching
            found = self.index.search(
                query, max(top, RERANKED) if other else top, filters, 0 if other or not rerank else None, cut_off=rerank
            )
            if other:
                found = self._by(chosen, [term.text for term in query.terms], found)[:top]
        return [Found(item, one) for one in found if (item := self.items.of_file(one.path)) is not None]

    def _by(self, adapter: Adapter, texts: Sequence[str], found: list[Match]) -> list[Match]:
        """Matches ranked by another adapter than the index's."""
        scored = []
        for one in found:
            visual = visual_of(adapter, one.path, one.kind == "video")
            sure = pair_scores(adapter.model, adapter.tokenizer, visual, texts, adapter=[adapter.part] * len(texts))
            scored.append(replace(one, matching=float(sure.mean())))
        return sorted(scored, key=lambda one: -(one.matching or 0.0))

    def _picture(self, named: str) -> Path:
        """The file that a query names: one of the index by its name, an upload by its key, and no other."""
        return Path(self.items.named(named).path)

    def answer(self, item: Item, adapters: Sequence[Adapter], question: str | None) -> list[Answer]:
        """Ask about a picture or video, or have it captioned, by each adapter.

        Raises:
            BusyError: too many requests wait, or the answer took too long.
            DataError: the file cannot be read, or the question is empty.
        """
        if question is not None:
            as_texts(question, "question")
            if not question.strip():
                raise DataError("the question is empty: write one", "empty question")
        futures = [self.batcher.submit(Job(item.path, item.video, one, question)) for one in adapters]
        until = time.monotonic() + ANSWER_SECONDS
        try:
            return [future.result(max(0.1, until - time.monotonic())) for future in futures]
        except FutureTimeout:
            raise BusyError("the answer took too long") from None
        finally:
            for future in futures:
                future.cancel()

    def _run(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        with self._computing:
            return run_jobs(jobs)

    def why(self, item: Item, text: str, adapter: Adapter) -> AttentionMap:
        """Where the words of a question, or of a search, look.

        Raises:
            DataError: the adapter's texts do not attend to patches, or the text is empty.
        """
        if adapter.task == "caption" or not has_attention_maps(adapter.model):
            raise DataError(f"{adapter.name} has no words that look at patches", "no attention")
        with self._computing:
            visual = visual_of(adapter, item.path, item.video)
            (found,) = attention_maps(adapter.model, adapter.tokenizer, visual, [text], adapter=adapter.part)
        return found

    def thumbnail(self, item: Item, time: float) -> bytes:
        """The index's thumbnail of the frame nearest to a time in seconds; empty for an upload."""
        return self.index.thumbnail(item.path, time)

    def close(self) -> None:
        """End the thread and delete uploads."""
        self.batcher.close()
        self.items.close()
