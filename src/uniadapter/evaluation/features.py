"""A gallery's visual tokens, in memory or in a memory-mapped file, so that a gallery of any size can be reranked."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.backbone import Visuals, encode_visual
from uniadapter.config import ConfigError, EvaluateConfig
from uniadapter.data.batches import Batch
from uniadapter.evaluation.blocks import free_memory

logger = logging.getLogger(__name__)

_SHARE = 0.5  # of the free memory that tokens may take before they go to disk


@contextmanager
def encoded_visuals(
    model: PreTrainedModel, batches: Iterable[Batch], count: int, config: EvaluateConfig, chunk: int = 0
) -> Iterator[Visuals]:
    """Encode all visuals that a loader gives, in its order.

    Args:
        model: in evaluation mode, without gradients.
        batches: the visuals.
        count: how many there are.
        config: `features` and `features_bf16` are used.
        chunk: frames encoded at once; 0 means all.

    Yields:
        `Visuals`; their tokens are in a file of the temporary folder if they are to be, or do not fit.

    Raises:
        ConfigError: the file does not fit on the disk.
    """
    dtype = torch.bfloat16 if config.features_bf16 else None
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        tokens: Tensor | None = None
        features: list[Tensor] = []
        frames: list[Tensor] = []
        done = 0
        for batch in batches:
            part = encode_visual(model, batch.frames.to(model.device), chunk)
            kept = part.tokens if dtype is None else part.tokens.to(dtype)
            if tokens is None:
                tokens = _room(kept, count, config, Path(folder))
            tokens[done : done + len(part)] = kept.to(tokens.device)
            done += len(part)
            features.append(part.feature)
            frames.append(part.frames)
        if tokens is None:  # this process has no share of them
            raise ConfigError("there are fewer visuals than processes: use fewer processes")
        yield Visuals(tokens, torch.cat(features), torch.cat(frames))
        del tokens  # closes the file, which some systems want before it is removed


def _room(first: Tensor, count: int, config: EvaluateConfig, folder: Path) -> Tensor:
    """An empty tensor for the tokens of all visuals, [count, T, N, d]."""
    shape = (count, *first.shape[1:])
    size = count * first[0].numel() * first.element_size()
    wanted = config.features
    if wanted == "auto":
        wanted = "disk" if size > _SHARE * free_memory(first.device) else "memory"
    if wanted == "memory":
        return first.new_empty(shape)
    file = folder / "tokens"
    with file.open("wb") as handle:
        try:
            if hasattr(os, "posix_fallocate"):  # without it a full disk would show only as a crash
                os.posix_fallocate(handle.fileno(), 0, size)
            else:
                handle.truncate(size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ConfigError(
                f"evaluate.features: the visual tokens need {size / 1e9:.1f} GB, more than {folder.parent} has left: "
                "free some, set TMPDIR to another folder, or set evaluate.features_bf16"
            ) from None
    logger.info("the visual tokens, %.1f GB, are kept on disk", size / 1e9)
    return torch.from_file(str(file), shared=True, size=size // first.element_size(), dtype=first.dtype).view(shape)
