"""The frames of an index file by file: which of a file's frames is the most similar, for all files at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniadapter.search.store import FileRow, Frames


@dataclass(frozen=True)
class Similar:
    """How similar an index is to a query.

    Args:
        frames: cosine of the query and each frame, [F].
        files: that of each file's most similar frame, [N]; -inf for a file without frames.
    """

    frames: NDArray[np.float32]
    files: NDArray[np.float32]

    def first(self, admitted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some files that have frames, the most similar first; of equals the one that was named first."""
        there = admitted[np.isfinite(self.files[admitted])]
        return there[np.argsort(-self.files[there], kind="stable")]


class FrameGroups:
    """Frames, grouped by the content that they are of; files of the same content have the same ones.

    Args:
        frames: of the index.
        files: N files.
    """

    def __init__(self, frames: Frames, files: Sequence[FileRow]) -> None:
        self.vectors = frames.vectors
        digests, of = np.unique(frames.digests.astype(str), return_inverse=True)
        self._rows = np.argsort(of, kind="stable")  # of frames, one content after the other
        self._starts = np.searchsorted(of[self._rows], np.arange(len(digests) + 1))
        groups = {str(digest): group for group, digest in enumerate(digests)}
        self.group_of = np.array([groups.get(row.digest, -1) for row in files], np.int64)

    def similar(self, vector: NDArray[np.float32]) -> Similar:
        """Compare all frames with a unit vector [e]."""
        frames = self.vectors @ vector
        best = np.full(len(self._starts), -np.inf, np.float32)  # the last is that of files without frames
        if len(frames):
            best[:-1] = np.maximum.reduceat(frames[self._rows], self._starts[:-1])
        return Similar(frames, best[self.group_of])

    def rows(self, file: int) -> NDArray[np.int64]:
        """The rows of a file's frames, in their order."""
        group = self.group_of[file]
        return self._rows[self._starts[group] : self._starts[group + 1]] if group >= 0 else self._rows[:0]
