"""What an index holds of a file, its row and its frames with their vectors: made here and nowhere else.

It is a function of the file's content, its path and the model alone, so that any process may make it, twice as well.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from uniadapter.errors import DataError
from uniadapter.files.writing import file_hash
from uniadapter.search.encoder import Encoder
from uniadapter.search.keyframes import read_keyframes, taken_at
from uniadapter.search.media_files import MediaFile
from uniadapter.search.store import FileRow, FrameRow

BATCH = 64  # frames encoded and written at once: what a killed run repeats at most
TOLD = 500  # files without new frames that are written at once


@dataclass(frozen=True)
class Content:
    """What an index holds of a file.

    Args:
        row: of the file; without kind and times where its content is known already.
        frames: of the file; none where it could not be read, or its content is known.
    """

    row: FileRow
    frames: Sequence[FrameRow] = ()


# Makes the contents of files, in their order and some at once; the second argument has the known ones by their digest.
Encode = Callable[[Sequence[MediaFile], Mapping[str, FileRow]], Generator[list[Content], None, None]]


@dataclass
class _Batch:
    """What waits to be encoded.

    Args:
        rows: of files.
        frames: of the files: digest, number, time and thumbnail.
        pixels: of the frames, as the model takes them; the pictures themselves may be large, and are not kept.
    """

    rows: list[FileRow] = field(default_factory=list)
    frames: list[tuple[str, int, float, bytes]] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.frames) >= BATCH or len(self.rows) >= TOLD

    def encoded(self, encoder: Encoder) -> list[Content]:
        """The contents of its files, in their order."""
        frames: dict[str, list[FrameRow]] = {}
        for (digest, number, time, thumbnail), vector in zip(self.frames, encoder.frames(self.pixels), strict=True):
            frames.setdefault(digest, []).append(FrameRow(digest, number, time, vector, thumbnail))
        return [Content(row, frames.pop(row.digest, ())) for row in self.rows]


def encode_files(
    files: Iterable[MediaFile], known: Container[str], encoder: Encoder
) -> Generator[list[Content], None, None]:
    """What an index holds of files, in their order, a batch of `BATCH` frames at once.

    Args:
        files: that are new or changed.
        known: digests of contents that need no frames; those of earlier files in this call are added to them.
        encoder: of the model.
    """
    batch, seen = _Batch(), set[str]()
    for file in files:
        try:
            digest = file_hash(file.path)
            if digest in known or digest in seen:
                batch.rows.append(FileRow(file.path, digest, file.size, file.changed))
            else:
                _read(file, digest, encoder, batch)
                seen.add(digest)
        except (DataError, OSError) as error:
            batch.rows.append(FileRow(file.path, "", file.size, file.changed, problem=_reason(error, file.path)))
        if batch.full:
            yield batch.encoded(encoder)
            batch = _Batch()
    if batch.rows:
        yield batch.encoded(encoder)


def _read(file: MediaFile, digest: str, encoder: Encoder, batch: _Batch) -> None:
    """Put a file and its frames into the batch, or nothing of it."""
    read = read_keyframes(file.path, encoder.transform.min_side)
    taken = taken_at(file.path, read.kind)
    pixels = [encoder.transform(frame.picture) for frame in read.frames]
    batch.frames += [(digest, number, frame.time, frame.thumbnail) for number, frame in enumerate(read.frames)]
    batch.pixels += pixels
    batch.rows.append(FileRow(file.path, digest, file.size, file.changed, read.kind, read.seconds, taken))


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).replace(path, "it").replace(", or set data.on_error to skip", "")
