"""Visual tokens of a gallery, in memory or in a temporary file, so that large galleries can be reranked."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.config import ConfigError, EvaluateConfig
from uniadapter.data.batches import Batch
from uniadapter.evaluation.blocks import free_memory
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import Visuals

logger = logging.getLogger(__name__)

_SHARE = 0.5  # part of the free memory for tokens; more are kept on disk


@contextmanager
def encoded_visuals(
    model: PreTrainedModel, batches: Iterable[Batch], count: int, config: EvaluateConfig, chunk: int = 0
) -> Iterator[Visuals]:
    """Encode all visuals of a loader, in its order.

    Args:
        model: in evaluation mode, without gradients.
        batches: of the visuals.
        count: number of visuals.
        config: `features` and `features_bf16` are used.
        chunk: frames encoded at once; 0 means all.

    Yields:
        The visuals; their tokens are in a temporary file if the config says so or memory is short. For a model without
        fused encoder and decoder, no tokens are kept.

    Raises:
        ConfigError: the file does not fit on the disk, or there are fewer visuals than processes.
    """
    dtype = torch.bfloat16 if config.features_bf16 else None
    layout = backbone(model).layout
    reads = layout.fuses or layout.decodes
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        tokens: Tensor | TokensOnDisk | None = None
        features: list[Tensor] = []
        frames: list[Tensor] = []
        done = 0
        for batch in batches:
            part = encode_visual(model, batch.frames.to(model.device), chunk)
            kept = part.tokens if reads else part.tokens[:, :, :0]
            kept = kept if dtype is None else kept.to(dtype)
            if tokens is None:
                tokens = _room(kept, count, config, Path(folder))
            tokens[done : done + len(part)] = kept.to(tokens.device)
            done += len(part)
            features.append(part.feature)
            frames.append(part.frames)
        if tokens is None:  # this process has no share of them
            raise ConfigError("there are fewer visuals than processes: use fewer processes")
        try:
            yield Visuals(cast(Tensor, tokens), torch.cat(features), torch.cat(frames))
        finally:
            if isinstance(tokens, TokensOnDisk):
                tokens.close()


class TokensOnDisk:
    """Visual tokens [V, T, N, d] in a file; rows are read when they are indexed.

    It has the attributes of a tensor that `fuse` uses: a shape, a device, and indexing by rows.

    Args:
        file: to be written.
        shape: [V, T, N, d].
        dtype: of the tokens.

    Raises:
        OSError: the file does not fit on the disk.
    """

    device = torch.device("cpu")

    def __init__(self, file: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape, self.dtype = torch.Size(shape), dtype
        self._row = self.shape[1:].numel() * dtype.itemsize  # bytes
        self._handle = file.open("w+b", buffering=0)
        size = shape[0] * self._row
        try:
            if hasattr(os, "posix_fallocate"):  # so that a full disk is noticed now
                os.posix_fallocate(self._handle.fileno(), 0, size)
            else:
                self._handle.truncate(size)
        except OSError:
            self.close()
            raise

    def __setitem__(self, rows: slice, values: Tensor) -> None:
        """Write consecutive rows."""
        self._handle.seek(rows.start * self._row)
        left = _bytes(values.to(self.device, self.dtype).contiguous())
        while left:
            left = left[self._handle.write(left) :]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Read rows by their indices [R] into a new tensor [R, T, N, d]."""
        found = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        for place, row in enumerate(rows.tolist()):
            self._handle.seek(row * self._row)
            left = _bytes(found[place])
            while left:
                read = self._handle.readinto(left)
                if not read:
                    raise OSError(f"{self._handle.name} ends before visual {row}: was it truncated?")
                left = left[read:]
        return found

    def close(self) -> None:
        """Close the file; some systems require that before it is removed."""
        self._handle.close()


def _bytes(values: Tensor) -> memoryview:
    """The memory of a contiguous tensor of any dtype, as bytes."""
    return values.view(torch.uint8).numpy().data.cast("B")


def _room(first: Tensor, count: int, config: EvaluateConfig, folder: Path) -> Tensor | TokensOnDisk:
    """An empty tensor or file for the tokens of all visuals, [count, T, N, d]."""
    shape = (count, *first.shape[1:])
    size = count * first[0].numel() * first.element_size()
    wanted = config.features
    if wanted == "auto":
        wanted = "disk" if size > _SHARE * free_memory(first.device) else "memory"
    if wanted == "memory":
        return first.new_empty(shape)
    try:
        tokens = TokensOnDisk(folder / "tokens", shape, first.dtype)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ConfigError(
            f"evaluate.features: the visual tokens need {size / 1e9:.1f} GB, more than {folder.parent} has left: "
            "free some, set TMPDIR to another folder, or set evaluate.features_bf16"
        ) from None
    logger.info("the visual tokens, %.1f GB, are kept on disk", size / 1e9)
    return tokens
