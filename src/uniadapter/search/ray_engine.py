"""Contents of files by Ray Data: workers on one machine or many read and encode, and the process that asked writes.

Files are dealt out in parts of about one batch of frames. A part is done by `encode_files`, with nothing kept from one
to the next, so that what a lost worker had in work is done again by another and comes out the same. Parts come back in
the order of the files, so that copies of a file are told as without Ray.
"""

from __future__ import annotations

import logging
import os
import platform
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uniadapter.checkpoints.pretrained import from_pretrained
from uniadapter.data.media.file_kinds import has_video_suffix
from uniadapter.errors import USER_ERRORS, CheckpointError, DataError, UsageError, user_message
from uniadapter.search import contents
from uniadapter.search.attempts import Attempts
from uniadapter.search.contents import Content, encode_files
from uniadapter.search.encoder import Encoder
from uniadapter.search.keyframes import MOST_FRAMES
from uniadapter.search.media_files import MediaFile
from uniadapter.search.store import FileRow

LOST = 5  # workers that may be lost at one part; then it is the part's fault
_OBJECTS = 100 * 2**20  # bytes of shared memory of a cluster that is started here; a part's result is 1 MB at most
_TOLD = "ray.data._internal.execution.resource_manager"  # the logger that says if the cluster is too small


@dataclass(frozen=True)
class Workers:
    """Processes that encode, each with the model and one thread.

    Args:
        count: most of them; None takes as many as the cluster has cores, or GPUs.
        gpus: of each; 0 computes on the CPU.
    """

    count: int | None = None
    gpus: float = 0


@dataclass(frozen=True)
class Job:
    """What a worker has to know.

    Args:
        model: name under which `from_pretrained` finds it on every machine.
        base: of an adapter; None takes the one that the adapter names.
        dtype: of the base's weights.
        digest: of the fingerprint that the model must have.
        roots: folders that every machine must see, at the same paths.
        known: digests of contents that need no frames.
        on_gpu: whether to encode on the GPU.
    """

    model: str
    base: str | None
    dtype: torch.dtype
    digest: str
    roots: Sequence[str]
    known: frozenset[str] = frozenset()
    on_gpu: bool = False


class Worker:
    """Reads and encodes parts; Ray makes one a process.

    Args:
        job: what to know.
        attempts: the actor that counts.
    """

    def __init__(self, job: Job, attempts: Any) -> None:
        self.job, self.attempts = job, attempts

    @cached_property
    def encoder(self) -> Encoder:
        """The model, loaded for the first part and kept.

        Raises:
            CheckpointError: it is another one here than where the index is.
        """
        loaded = from_pretrained(self.job.model, self.job.base, dtype=self.job.dtype)
        if self.job.on_gpu:
            loaded.model.to("cuda")  # type: ignore[arg-type]
        encoder = Encoder(loaded)
        if encoder.fingerprint.digest != self.job.digest:
            raise CheckpointError(f"{self.job.model}: another model on {platform.node()} than where the index is")
        return encoder

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part's contents, or the error of a user that ends the run, as one object."""
        files = [MediaFile(*map(_plain, one)) for one in zip(part["path"], part["size"], part["changed"], strict=True)]
        out = np.empty(1, object)
        try:
            self._check(int(part["part"][0]), files)
            out[0] = [one for batch in encode_files(files, self.job.known, self.encoder) for one in batch]
        except USER_ERRORS as error:
            out[0] = type(error)(user_message(error) or str(error))
        return {"contents": out}

    def _check(self, number: int, files: list[MediaFile]) -> None:
        import ray

        begun = ray.get(self.attempts.begin.remote(number))
        if begun > LOST:
            where = files[0].path + (f", or at one of the {len(files) - 1} files after it" if files[1:] else "")
            raise DataError(f"{where}: {LOST} workers died here; take the file away, and index again", "workers died")
        for root in self.job.roots:
            if not Path(root).is_dir():
                raise DataError(f"{root}: not on {platform.node()}; all machines must see it at this path", "no folder")


class RayEngine:
    """See `contents.Encode`.

    Args:
        job: of the workers, without the known digests.
        workers: how many.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, job: Job, workers: Workers) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to Ray's makers
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its processes have their own logs
        try:
            import ray
            import ray.data
        except ImportError:
            raise UsageError('the engine is Ray, which is not installed: pip install "uniadapter[ray]"') from None
        self.ray, self.job, self.workers = ray, job, workers

    def __call__(
        self, files: Sequence[MediaFile], known: Mapping[str, FileRow]
    ) -> Generator[list[Content], None, None]:
        """The contents of files, in their order; see `contents.Encode`."""
        if not files:
            return  # no cluster for nothing
        sizes = {file.size for file in files}
        digests = frozenset(digest for digest, row in known.items() if row.size in sizes)  # the others can't be meant
        job = replace(self.job, known=digests, on_gpu=self.workers.gpus > 0)
        with self._cluster(), _quiet():
            for row in self._encoded(files, job).iter_rows():
                found = row["contents"]
                if isinstance(found, Exception):
                    raise found
                yield found

    def _encoded(self, files: Sequence[MediaFile], job: Job) -> Any:
        """A Ray data set with a row a part, of which nothing is computed yet."""
        import pyarrow as pa

        ray, gpus = self.ray, self.workers.gpus
        there = ray.cluster_resources()
        count = self.workers.count or max(1, int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1)))
        settings = ray.data.DataContext.get_current().copy()
        settings.enable_progress_bars = settings.print_on_execution_start = False
        settings.execution_options.preserve_order = True
        attempts = ray.remote(num_cpus=0)(Attempts).remote()
        with ray.data.DataContext.current(settings):
            parts = [pa.Table.from_pylist([{**vars(file), "part": number} for file in part])
                     for number, part in enumerate(parted(files))]  # fmt: skip
            return ray.data.from_arrow(parts).map_batches(
                Worker,
                fn_constructor_args=(job, attempts),
                batch_size=None,  # a part
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
                num_cpus=1,
                num_gpus=gpus,
            )

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """The cluster of this process, else the one at RAY_ADDRESS or on this machine, else a new one on this machine.

        Raises:
            UsageError: there is one, and it cannot be used.
        """
        if self.ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            self.ray.init(address="auto", **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if os.environ.get("RAY_ADDRESS") or not isinstance(error, ConnectionError):
                where = os.environ.get("RAY_ADDRESS", "of this machine")
                raise UsageError(f"Ray's cluster {where} cannot be used: {' '.join(str(error).split())}") from None
            own: dict[str, Any] = {
                "num_cpus": self.workers.count,
                "object_store_memory": _OBJECTS,
                "include_dashboard": False,
            }
            with warnings.catch_warnings():
                # LanceDB warns of forks; those here start another program at once.
                warnings.filterwarnings("ignore", message="lancedb fork", category=RuntimeWarning)
                self.ray.init(address="local", **own, **options)
        try:
            yield
        finally:
            self.ray.shutdown()


def parted(files: Sequence[MediaFile]) -> Iterator[list[MediaFile]]:
    """Files in parts of about `contents.BATCH` frames, so that little is done twice; a video may have `MOST_FRAMES`."""
    part: list[MediaFile] = []
    frames = 0
    for file in files:
        frames += MOST_FRAMES if has_video_suffix(file.path) else 1
        part.append(file)
        if frames >= contents.BATCH:
            yield part
            part, frames = [], 0
    if part:
        yield part


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the block Ray Data says no more than that the cluster is too small, and errors."""
    levels = {logging.getLogger("ray.data"): logging.ERROR, logging.getLogger(_TOLD): logging.WARNING}
    before = {logger: logger.level for logger in levels}
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
